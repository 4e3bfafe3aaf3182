//! `weft get`: show resources.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::{Kind, Kinds, name, text};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft get services\n  weft get httproute reviews -o yaml\n  weft get pod -l app=books"
)]
pub(crate) struct Get {
    /// KIND, or KIND/NAME, or KIND,KIND
    kind: String,
    /// Only this one
    name: Option<String>,
    /// Only those with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

/// Prints one object or a list.
pub(crate) async fn run(global: &Global, get: Get) -> Result<ExitCode, Failure> {
    let (word, wanted) = split_name(&get.kind, get.name);
    let mesh = Mesh::of_running(global).await?;
    let kinds = Kinds::discover(&mesh).await?;
    let chosen = word
        .split(',')
        .map(|word| kinds.find(word))
        .collect::<Result<Vec<&Kind>, Failure>>()?;
    match (wanted, &chosen[..]) {
        (Some(wanted), [kind]) => one(global, &mesh, kind, &wanted).await?,
        (Some(_), _) => {
            return Err(Failure::usage(
                "a name goes with one kind, not with several",
            ));
        }
        (None, [kind]) => list(global, &mesh, kind, get.selector.as_deref()).await?,
        (None, kinds) if matches!(global.output, Output::Json | Output::Yaml | Output::K8s) => {
            list_together(global, &mesh, kinds, get.selector.as_deref()).await?;
        }
        (None, kinds) => {
            for kind in kinds {
                list(global, &mesh, kind, get.selector.as_deref()).await?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `kind/name` is short for `kind name`.
pub(crate) fn split_name(kind: &str, name: Option<String>) -> (String, Option<String>) {
    match (kind.split_once('/'), name) {
        (Some((kind, name)), None) => (kind.to_owned(), Some(name.to_owned())),
        (_, name) => (kind.to_owned(), name),
    }
}

async fn one(global: &Global, mesh: &Mesh, kind: &Kind, wanted: &str) -> Result<(), Failure> {
    let path = kind.path(&global.namespace, wanted);
    match global.output {
        Output::Name => {
            mesh.get(&path).await?;
            output::line(&kind.title(wanted));
        }
        Output::Table | Output::Wide => print_table(global, &mesh.get_table(&path).await?),
        format => {
            output::document(format, &mesh.get(&path).await?)?;
        }
    }
    Ok(())
}

fn collection(global: &Global, kind: &Kind, selector: Option<&str>) -> String {
    let path = kind.collection(&global.namespace);
    match selector {
        Some(selector) => format!("{path}?labelSelector={}", crate::mesh::encode(selector)),
        None => path,
    }
}

/// Several kinds as one document.
async fn list_together(
    global: &Global,
    mesh: &Mesh,
    kinds: &[&Kind],
    selector: Option<&str>,
) -> Result<(), Failure> {
    let mut items = Vec::new();
    for kind in kinds {
        let list = mesh.get(&collection(global, kind, selector)).await?;
        items.extend(list["items"].as_array().cloned().unwrap_or_default());
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    output::document(global.output, &list).map(drop)
}

async fn list(
    global: &Global,
    mesh: &Mesh,
    kind: &Kind,
    selector: Option<&str>,
) -> Result<(), Failure> {
    let path = collection(global, kind, selector);
    match global.output {
        Output::Name => {
            for item in mesh.get(&path).await?["items"]
                .as_array()
                .into_iter()
                .flatten()
            {
                output::line(&kind.title(&name(item)));
            }
        }
        Output::Table | Output::Wide => {
            let table = mesh.get_table(&path).await?;
            if table["rows"].as_array().is_none_or(Vec::is_empty) {
                output::remark(
                    global,
                    &format!("no {} in namespace {}", kind.plural, global.namespace),
                );
                return Ok(());
            }
            print_table(global, &table);
        }
        format => {
            let items = mesh.get(&path).await?;
            output::document(
                format,
                &json!({ "apiVersion": "v1", "kind": "List", "items": items["items"] }),
            )?;
        }
    }
    Ok(())
}

/// Prints a `meta.k8s.io/v1` Table: columns of priority 0, all of them with `-o wide`.
fn print_table(global: &Global, table: &Value) {
    let definitions: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let is_shown = |index: usize| {
        global.output == Output::Wide
            || definitions
                .get(index)
                .is_none_or(|column| column["priority"].as_i64().unwrap_or(0) == 0)
    };
    let headings: Vec<String> = definitions
        .iter()
        .enumerate()
        .filter(|(index, _)| is_shown(*index))
        .map(|(_, column)| text(&column["name"]).to_uppercase())
        .collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let rows = table["rows"].as_array().into_iter().flatten().map(|row| {
        let cells = row["cells"].as_array().into_iter().flatten().enumerate();
        cells
            .filter(|(index, _)| is_shown(*index))
            .map(|(_, cell)| cell_text(cell))
            .collect::<Vec<String>>()
    });
    output::table(&headings, rows);
}

fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
