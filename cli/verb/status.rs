//! `weft status`: the mesh as a whole.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::text;

#[derive(Debug, Args)]
pub(crate) struct Status {}

/// Prints daemon, node, revision, proxies and certificates.
pub(crate) async fn run(global: &Global, _status: Status) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let status = mesh.get("/weft/v1/status").await?;
    if output::document(global.output, &status)?.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let proxies = status["proxies"].as_array().cloned().unwrap_or_default();
    let synced = proxies
        .iter()
        .filter(|proxy| proxy["revision"] == status["revision"])
        .count();
    let rows = [
        (
            "daemon",
            format!(
                "weft {}, pid {}, up {}",
                text(&status["version"]),
                status["pid"],
                uptime(&status)
            ),
        ),
        (
            "api",
            format!(
                "http://{}  (token: {})",
                text(&status["apiAddress"]),
                mesh.paths().home.join("token").display()
            ),
        ),
        ("node", node(&status)),
        ("revision", status["revision"].to_string()),
        (
            "proxies",
            format!("{} connected, {synced} synced", proxies.len()),
        ),
        ("certificates", certificates(&status)),
    ];
    output::table(
        &["PART", "STATE"],
        rows.into_iter()
            .map(|(part, state)| vec![part.to_owned(), state]),
    );
    Ok(ExitCode::SUCCESS)
}

fn uptime(status: &Value) -> String {
    output::age(status["uptimeSeconds"].as_i64().unwrap_or_default())
}

fn node(status: &Value) -> String {
    match status["node"]["pid"].as_i64() {
        Some(pid) => format!(
            "pid {pid}, namespaces held by {}",
            status["node"]["holderPid"]
        ),
        None => "not reachable".to_owned(),
    }
}

fn certificates(status: &Value) -> String {
    let count = status["certificates"]["count"].as_u64().unwrap_or_default();
    match status["certificates"]["nextEnd"].as_i64() {
        Some(end) => format!(
            "{count}, the first ends in {}",
            output::age(end - jiff::Timestamp::now().as_second())
        ),
        None => count.to_string(),
    }
}
