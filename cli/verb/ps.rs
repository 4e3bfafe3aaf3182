//! `weft ps`: pods with their state, health, restarts and sidecar.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::Mesh;
use crate::output;
use crate::resource::{name, text};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft ps\n  weft ps -o wide      # addresses, images, memory of the sidecars"
)]
pub(crate) struct Ps {
    /// Finished pods too
    #[arg(short, long)]
    all: bool,
}

/// The name of the sidecar's container in every pod.
const SIDECAR: &str = "weft-proxy";

/// Lists the pods of the namespace.
pub(crate) async fn run(global: &Global, ps: Ps) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_running(global).await?;
    let list = mesh
        .get(&format!("/api/v1/namespaces/{}/pods", global.namespace))
        .await?;
    let mut pods: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    pods.retain(|pod| ps.all || !is_finished(pod));
    pods.sort_by_key(|pod| name(pod));
    let memory = match global.output {
        Output::Table | Output::Name => BTreeMap::new(),
        _ => sidecar_memory(&mesh).await?,
    };
    match global.output {
        Output::Name => pods
            .iter()
            .for_each(|pod| output::line(&format!("pod/{}", name(pod)))),
        Output::Table | Output::Wide if pods.is_empty() => {}
        Output::Table => print(&pods),
        Output::Wide => print_wide(&pods, &memory),
        format => {
            let pods: Vec<Value> = pods.iter().map(|pod| summary(pod, &memory)).collect();
            output::document(format, &pods)?;
        }
    }
    if pods.is_empty() {
        output::remark(
            global,
            &format!("no pods in namespace {}", global.namespace),
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print(pods: &[&Value]) {
    let headings = [
        "POD", "SERVICE", "STATE", "READY", "SIDECAR", "RESTARTS", "AGE",
    ];
    output::table(&headings, pods.iter().map(|pod| row(pod)));
}

fn print_wide(pods: &[&Value], memory: &BTreeMap<String, Memory>) {
    let headings = [
        "POD",
        "SERVICE",
        "STATE",
        "READY",
        "SIDECAR",
        "RESTARTS",
        "AGE",
        "ADDRESS",
        "SIDECAR MEMORY",
        "IMAGE",
    ];
    let rows = pods.iter().map(|pod| {
        let mut row = row(pod);
        row.push(text(&pod["status"]["podIP"]));
        row.push(
            memory
                .get(&name(pod))
                .map_or_else(|| "-".to_owned(), Memory::to_string),
        );
        row.push(text(&pod["spec"]["containers"][0]["image"]));
        row
    });
    output::table(&headings, rows);
}

fn row(pod: &Value) -> Vec<String> {
    vec![
        name(pod),
        service(pod),
        state(pod),
        if is_ready(pod) { "yes" } else { "no" }.to_owned(),
        sidecar_state(pod).to_owned(),
        restarts(pod).to_string(),
        output::age_of(pod["metadata"]["creationTimestamp"].as_str()),
    ]
}

fn summary(pod: &Value, memory: &BTreeMap<String, Memory>) -> Value {
    json!({
        "name": name(pod),
        "service": service(pod),
        "project": pod["metadata"]["labels"]["weft.dev/project"],
        "state": state(pod),
        "ready": is_ready(pod),
        "sidecar": sidecar_state(pod),
        "restarts": restarts(pod),
        "created": pod["metadata"]["creationTimestamp"],
        "started": pod["status"]["startTime"],
        "address": pod["status"]["podIP"],
        "addresses": pod["status"]["podIPs"],
        "sidecarMemoryBytes": memory.get(&name(pod)).map(|memory| memory.resident_bytes),
        "sidecarPrivateBytes": memory.get(&name(pod)).map(|memory| memory.private_bytes),
        "image": pod["spec"]["containers"][0]["image"],
    })
}

/// The Compose service a pod belongs to.
pub(crate) fn service(pod: &Value) -> String {
    text(&pod["metadata"]["labels"]["app"])
}

/// Whether a pod takes traffic.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Whether a pod is where it is meant to be: ready, or ended well.
pub(crate) fn is_settled(pod: &Value) -> bool {
    is_ready(pod) || pod["status"]["phase"] == "Succeeded"
}

/// Why a container waits, in the launcher's words.
pub(crate) fn waiting_message(pod: &Value) -> String {
    let containers = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten();
    containers
        .into_iter()
        .find_map(|container| container["state"]["waiting"]["message"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn is_finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// What a person wants to know first: why it does not run, or that it does.
pub(crate) fn state(pod: &Value) -> String {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".to_owned();
    }
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let containers = statuses
        .iter()
        .flat_map(|field| pod["status"][*field].as_array().into_iter().flatten());
    let waiting = containers
        .into_iter()
        .find_map(|container| container["state"]["waiting"]["reason"].as_str());
    let reason = pod["status"]["reason"].as_str();
    let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
    waiting.or(reason).unwrap_or(phase).to_owned()
}

fn sidecar_status(pod: &Value) -> Option<&Value> {
    let containers = pod["status"]["initContainerStatuses"]
        .as_array()
        .into_iter()
        .flatten();
    containers
        .into_iter()
        .find(|container| container["name"] == SIDECAR)
}

fn sidecar_state(pod: &Value) -> &'static str {
    let containers = pod["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten();
    if !containers
        .into_iter()
        .any(|container| container["name"] == SIDECAR)
    {
        return "none";
    }
    match sidecar_status(pod) {
        Some(status) if status["ready"] == true => "ready",
        Some(status) if !status["state"]["running"].is_null() => "starting",
        Some(status) if !status["state"]["terminated"].is_null() => "ended",
        _ => "waiting",
    }
}

fn restarts(pod: &Value) -> u64 {
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let containers = statuses
        .iter()
        .flat_map(|field| pod["status"][*field].as_array().into_iter().flatten());
    containers
        .into_iter()
        .filter_map(|container| container["restartCount"].as_u64())
        .sum()
}

/// What a sidecar has in memory. All sidecars share the pages of their program: only the rest is each one's own.
struct Memory {
    resident_bytes: u64,
    private_bytes: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resident, private) = (
            output::bytes(self.resident_bytes),
            output::bytes(self.private_bytes),
        );
        write!(formatter, "{resident} ({private} own)")
    }
}

/// The memory of each pod's sidecar.
async fn sidecar_memory(mesh: &Mesh) -> Result<BTreeMap<String, Memory>, Failure> {
    let containers = mesh.get("/weft/v1/containers").await?;
    let containers = containers.as_array().into_iter().flatten();
    let sidecars = containers
        .into_iter()
        .filter(|container| container["container"] == SIDECAR);
    Ok(sidecars
        .filter_map(|sidecar| {
            let memory = Memory {
                resident_bytes: sidecar["residentBytes"].as_u64()?,
                private_bytes: sidecar["privateBytes"].as_u64()?,
            };
            Some((text(&sidecar["pod"]), memory))
        })
        .collect())
}
