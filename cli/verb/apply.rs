//! `weft apply`: create or change resources from files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::{Applied, Mesh};
use crate::output;
use crate::resource::{Kinds, name};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft apply -f policy.yaml\n  weft apply -f policies/ --dry-run\n  cat policy.yaml | weft apply -f -"
)]
pub(crate) struct Apply {
    /// A file, a folder of files, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// Validate everything, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Applies every object of the files; the first that is refused ends it.
pub(crate) async fn run(global: &Global, apply: Apply) -> Result<ExitCode, Failure> {
    let objects = read_all(&apply.files)?;
    let mesh = Mesh::of_running(global).await?;
    let kinds = Kinds::discover(&mesh).await?;
    for (origin, object) in &objects {
        let kind = kinds
            .of(object)
            .map_err(|failure| failure.while_doing(origin))?;
        let path = kind.path(namespace(object, global), &name(object));
        let applied = mesh
            .apply(&path, object, apply.dry_run)
            .await
            .map_err(|failure| {
                failure.while_doing(format!("{origin}: {}", kind.title(&name(object))))
            })?;
        report(global, &kind.title(&name(object)), applied, apply.dry_run);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what became of an object, as kubectl words it.
pub(crate) fn report(global: &Global, title: &str, applied: Applied, is_dry_run: bool) {
    let word = match applied {
        Applied::Created => "created",
        Applied::Configured => "configured",
        Applied::Unchanged => "unchanged",
    };
    let suffix = if is_dry_run { " (dry run)" } else { "" };
    match global.output {
        Output::Name => output::line(title),
        _ => output::line(&format!("{title} {word}{suffix}")),
    }
}

/// The namespace of an object, or the one of the command.
pub(crate) fn namespace<'a>(object: &'a Value, global: &'a Global) -> &'a str {
    object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(&global.namespace)
}

/// The objects of files, with where each came from.
pub(crate) fn read_all(files: &[PathBuf]) -> Result<Vec<(String, Value)>, Failure> {
    let mut objects = Vec::new();
    for file in files {
        for path in expand(file)? {
            let text = read(&path)?;
            objects.extend(parse(&path.display().to_string(), &text)?);
        }
    }
    if objects.is_empty() {
        let files: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        return Err(Failure::usage(format!(
            "no resource in {}: of a folder the files .yaml, .yml and .json are read, not folders inside it",
            files.join(", ")
        )));
    }
    Ok(objects)
}

fn expand(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.retain(|file| {
        file.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"]
                .iter()
                .any(|known| extension == *known)
        })
    });
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, Failure> {
    let explain = |error| Failure::new(format!("reading {}: {error}", path.display()));
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(explain)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(explain)
}

/// No manifest is larger.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

fn parse(origin: &str, text: &str) -> Result<Vec<(String, Value)>, Failure> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        let told = error.to_string().replace("<input>", origin);
        let told = told.trim_start_matches("error: ");
        Failure::refused(format!("{origin} is not YAML: {told}"))
    })?;
    let mut objects = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            Value::Object(_) if document["kind"] == "List" => {
                let items = document["items"].as_array().cloned().unwrap_or_default();
                objects.extend(items.into_iter().map(|item| (origin.to_owned(), item)));
            }
            Value::Object(_) => objects.push((origin.to_owned(), document)),
            _ => {
                return Err(Failure::refused(format!(
                    "{origin}: a document is no resource: it is not a mapping"
                )));
            }
        }
    }
    for (origin, object) in &objects {
        for (field, value) in [
            ("apiVersion", &object["apiVersion"]),
            ("kind", &object["kind"]),
            ("metadata.name", &object["metadata"]["name"]),
        ] {
            if value.as_str().is_none_or(str::is_empty) {
                if object["services"].is_object() {
                    return Err(Failure::refused(format!(
                        "{origin} is a Compose file: start it with `weft up -f {origin}`"
                    )));
                }
                return Err(Failure::refused(format!(
                    "{origin}: a resource has no {field}"
                )));
            }
        }
    }
    Ok(objects)
}
