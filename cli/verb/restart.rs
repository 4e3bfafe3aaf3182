//! `weft restart --sidecars`: this version of weft in place of the one that sidecars run.
//!
//! One pod after the other: the newer process takes over the sidecar's sockets, and the older one finishes what it has
//! begun. A newer process that does not come to serve changes nothing, and ends the command.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::arguments::Global;
use crate::failure::Failure;
use crate::mesh::{Mesh, encode};
use crate::output;
use crate::resource::{name, text};
use crate::verb::logs::chosen;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft restart --sidecars\n  weft restart --sidecars front books"
)]
pub(crate) struct Restart {
    /// Replace sidecars while they run; applications are left alone
    #[arg(long, required = true)]
    sidecars: bool,
    /// The program that sidecars run then; default: this one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Services or pods; none: all of the namespace
    services: Vec<String>,
}

/// How long a newer sidecar may take to serve; it gives up a little earlier by itself.
const TAKE_OVER: Duration = Duration::from_secs(75);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// Replaces the sidecars of the pods that were named, in turn.
pub(crate) async fn run(global: &Global, restart: Restart) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let mut pods = chosen(global, &mesh, &restart.services).await?;
    pods.retain(has_running_sidecar);
    if pods.is_empty() {
        output::remark(global, "no sidecar runs here: see `weft ps`");
        return Ok(ExitCode::SUCCESS);
    }
    let digest = send_program(global, &mesh, restart.program).await?;
    for pod in &pods {
        let sidecar = Sidecar::of(global, &mesh, pod);
        let doing = || format!("replacing the sidecar of {}", name(pod));
        let version = sidecar
            .replace(&digest)
            .await
            .map_err(|failure| failure.while_doing(doing()))?;
        output::line(&format!("{} {version}", name(pod)));
    }
    // Only what has proved itself is given to pods to come.
    let path = format!("/weft/v1/programs/{}/use", encode(&digest));
    mesh.post(&path, &json!({})).await?;
    Ok(ExitCode::SUCCESS)
}

fn has_running_sidecar(pod: &Value) -> bool {
    let statuses = pod["status"]["initContainerStatuses"].as_array();
    statuses.into_iter().flatten().any(|status| {
        status["name"] == weft_injector::inject::SIDECAR && status["state"]["running"].is_object()
    })
}

/// Takes the program to the node, which knows it by its digest.
async fn send_program(
    global: &Global,
    mesh: &Mesh,
    program: Option<PathBuf>,
) -> Result<String, Failure> {
    let program = program.unwrap_or_else(|| "/proc/self/exe".into());
    let doing = format!("sending {} to the node", program.display());
    let file = std::fs::File::open(&program)
        .map_err(|error| Failure::new(error.to_string()).while_doing(&doing))?;
    let bar = output::progress(global, "sending the program");
    let sent = mesh.upload("/weft/v1/programs", file, |_| {}).await;
    bar.finish_and_clear();
    let done = sent.map_err(|failure| failure.while_doing(doing))?;
    Ok(text(&done["digest"]))
}

/// One pod's sidecar.
struct Sidecar<'a> {
    mesh: &'a Mesh,
    container: String,
    admin: String,
}

impl<'a> Sidecar<'a> {
    fn of(global: &Global, mesh: &'a Mesh, pod: &Value) -> Self {
        let (namespace, pod) = (&global.namespace, name(pod));
        Sidecar {
            mesh,
            container: format!("{namespace}.{pod}.{}", weft_injector::inject::SIDECAR),
            admin: format!(
                "/api/v1/namespaces/{namespace}/pods/{pod}:{}/proxy/server_info",
                weft_proto::names::ADMIN_PORT
            ),
        }
    }

    /// Starts the program beside the sidecar's and waits until it has taken over; its version.
    async fn replace(&self, digest: &str) -> Result<String, Failure> {
        let before = epoch(&self.mesh.get(&self.admin).await?);
        let path = format!("/weft/v1/containers/{}/replace", encode(&self.container));
        let begun = self.mesh.post(&path, &json!({"program": digest})).await?;
        failed(&begun)?;
        let attempt = begun["replacements"].clone();
        let deadline = Instant::now() + TAKE_OVER;
        while Instant::now() < deadline {
            // The sidecar may be busy, or ending: what the node says of it decides.
            if let Ok(info) = self.mesh.get(&self.admin).await
                && epoch(&info) == before + 1
            {
                return Ok(text(&info["version"]));
            }
            let container = self.container().await?;
            failed(&container)?;
            if container["replacements"] != attempt {
                return Err(Failure::new(
                    "the sidecar was restarted, or replaced by somebody else, meanwhile",
                ));
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Failure::timed_out(format!(
            "the newer process has not taken over within {} s; the older one serves on",
            TAKE_OVER.as_secs()
        )))
    }

    async fn container(&self) -> Result<Value, Failure> {
        let all = self.mesh.get("/weft/v1/containers").await?;
        let found = all.as_array().into_iter().flatten();
        found
            .into_iter()
            .find(|container| container["id"] == self.container.as_str())
            .cloned()
            .ok_or_else(|| Failure::not_found("the pod has ended meanwhile"))
    }
}

fn epoch(info: &Value) -> u64 {
    info["command_line_options"]["restart_epoch"]
        .as_u64()
        .unwrap_or_default()
}

/// What the node says of an attempt that failed; the older process serves on then.
fn failed(container: &Value) -> Result<(), Failure> {
    match container["replacementFailure"].as_str() {
        None | Some("") => Ok(()),
        Some(why) => Err(Failure::new(format!(
            "{why}; the older sidecar serves on (see `weft logs --proxy {}`)",
            text(&container["pod"])
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_whose_sidecar_runs_are_replaced() {
        let pod = |state: &str| json!({"status": {"initContainerStatuses": [{"name": "weft-proxy", "state": {state: {}}}]}});

        assert!(has_running_sidecar(&pod("running")));
        assert!(!has_running_sidecar(&pod("terminated")));
        assert!(!has_running_sidecar(&json!({"status": {}})));
    }

    #[test]
    fn a_failed_attempt_says_why_and_where_to_look() {
        assert!(failed(&json!({"replacementFailure": ""})).is_ok());

        let container = json!({"replacementFailure": "no such file", "pod": "front-1"});
        let failure = failed(&container).expect_err("failed").to_string();

        assert!(
            failure.contains("no such file") && failure.contains("--proxy front-1"),
            "{failure}"
        );
    }
}
