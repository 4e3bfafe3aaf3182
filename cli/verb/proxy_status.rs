//! `weft proxy-status`: which sidecars have acknowledged which configuration.

use std::process::ExitCode;

use clap::Args;

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::text;

#[derive(Debug, Args)]
pub(crate) struct ProxyStatus {}

/// Lists every connected proxy with the revision it has acknowledged.
pub(crate) async fn run(global: &Global) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let status = mesh.get("/weft/v1/proxies").await?;
    if output::document(global.output, &status)?.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let current = status["revision"].as_u64();
    let rows = status["proxies"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|proxy| {
            let acknowledged = proxy["revision"].as_u64();
            let state = match &proxy["lastError"] {
                serde_json::Value::String(error) => format!("refused: {error}"),
                _ if acknowledged == current => "synced".to_owned(),
                _ => "stale".to_owned(),
            };
            let mut row = vec![
                text(&proxy["node"]),
                state,
                acknowledged.map_or_else(|| "-".to_owned(), |revision| revision.to_string()),
            ];
            if global.output == Output::Wide {
                row.push(text(&proxy["identity"]));
            }
            row
        });
    match global.output {
        Output::Name => rows.for_each(|row| output::line(&row[0])),
        Output::Wide => output::table(&["PROXY", "STATE", "REVISION", "IDENTITY"], rows),
        _ => output::table(&["PROXY", "STATE", "REVISION"], rows),
    }
    Ok(ExitCode::SUCCESS)
}
