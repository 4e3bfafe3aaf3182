//! `weft delete`: delete resources.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::{Kinds, name};
use crate::verb::apply;
use crate::verb::get::split_name;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weft delete httproute/reviews\n  weft delete -f policy.yaml")]
pub(crate) struct Delete {
    /// KIND, or KIND/NAME
    #[arg(required_unless_present = "files")]
    kind: Option<String>,
    /// Which ones
    names: Vec<String>,
    /// Delete what these files hold
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Succeed where there is nothing to delete
    #[arg(long)]
    ignore_not_found: bool,
}

/// Deletes each; one that does not exist is an error unless told otherwise.
pub(crate) async fn run(global: &Global, delete: Delete) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let kinds = Kinds::discover(&mesh).await?;
    for (title, path) in targets(global, &delete, &kinds)? {
        match mesh.delete(&path).await {
            Ok(()) => output::line(&format!("{title} deleted")),
            Err(failure) if failure.is_not_found() && delete.ignore_not_found => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn targets(
    global: &Global,
    delete: &Delete,
    kinds: &Kinds,
) -> Result<Vec<(String, String)>, Failure> {
    let mut targets = Vec::new();
    if !delete.files.is_empty() {
        for (_, object) in apply::read_all(&delete.files)? {
            let kind = kinds.of(&object)?;
            let path = kind.path(apply::namespace(&object, global), &name(&object));
            targets.push((kind.title(&name(&object)), path));
        }
    }
    if let Some(word) = &delete.kind {
        let (word, first) = split_name(word, None);
        let kind = kinds.find(&word)?;
        let names: Vec<&String> = first.iter().chain(&delete.names).collect();
        if names.is_empty() {
            return Err(Failure::usage(format!(
                "which {}? Name them, or use -f",
                kind.plural
            )));
        }
        for name in names {
            targets.push((kind.title(name), kind.path(&global.namespace, name)));
        }
    }
    Ok(targets)
}
