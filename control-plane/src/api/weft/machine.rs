//! The machine below the mesh: the node, its containers, and the end of it all.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use weft_proto::weft::node::v1::{
    Container, ContainerState, InfoRequest, InfoResponse, ListContainersRequest,
    RemoveVolumeRequest, ShutdownRequest,
};

use crate::api::Api;
use crate::kinds;
use crate::refusal::Refusal;

pub(super) async fn node(State(api): State<Arc<Api>>) -> Result<Json<Value>, Refusal> {
    let answer = api
        .node
        .call(async |mut client| client.info(InfoRequest {}).await)
        .await?;
    Ok(Json(info(&answer)))
}

/// What the node says of itself.
pub(super) fn info(answer: &InfoResponse) -> Value {
    let InfoResponse {
        version,
        pid,
        gateway_ipv4,
        gateway_ipv6,
        holder_pid,
    } = answer;
    json!({
        "version": version,
        "pid": pid,
        "gatewayIPv4": gateway_ipv4,
        "gatewayIPv6": gateway_ipv6,
        "holderPid": holder_pid,
    })
}

/// Every container of the node, with what it uses.
pub(super) async fn containers(State(api): State<Arc<Api>>) -> Result<Json<Value>, Refusal> {
    let answer = api
        .node
        .call(async |mut client| client.list_containers(ListContainersRequest {}).await)
        .await?;
    Ok(Json(answer.containers.iter().map(container).collect()))
}

pub(super) fn container(container: &Container) -> Value {
    // The launcher names containers <namespace>.<pod>.<container>; pods may have dots in their names.
    let id = container.id.as_str();
    let (namespace, rest) = id.split_once('.').unwrap_or(("", id));
    let (pod, name) = rest.rsplit_once('.').unwrap_or(("", rest));
    let state = match container.state() {
        ContainerState::Unspecified => "unknown",
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Restarting => "restarting",
        ContainerState::Exited => "exited",
        ContainerState::Removed => "removed",
    };
    json!({
        "id": id,
        "namespace": namespace,
        "pod": pod,
        "container": name,
        "sandbox": container.sandbox_id,
        "image": container.image,
        "state": state,
        "pid": container.pid,
        "exitCode": container.exit_code,
        "exitReason": container.exit_reason,
        "restarts": container.restarts,
        "createdAt": container.created_at,
        "startedAt": container.started_at,
        "finishedAt": container.finished_at,
        "labels": container.labels,
        "residentBytes": container.resident_bytes,
        "privateBytes": container.private_bytes,
        "listeningPorts": container.listening_ports,
        "replacements": container.replacements,
        "replacementFailure": container.replacement_failure,
    })
}

/// Removes a named volume. Refused while a pod names it.
pub(super) async fn remove_volume(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let snapshot = api.store.snapshot();
    let mut pods = snapshot.list(&kinds::POD, None);
    if let Some(pod) = pods.find(|pod| claims(pod.value()).any(|claim| claim == name)) {
        return Err(Refusal::Conflict {
            resource: "volumes".to_owned(),
            name,
            why: format!("pod {} uses it", pod.name()),
        });
    }
    let request = RemoveVolumeRequest { name };
    api.node
        .call(async move |mut client| client.remove_volume(request).await)
        .await?;
    Ok(Json(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    ))
}

/// The named volumes of a pod.
fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

/// Ends node and daemon. Refused while there are pods: they would lose what keeps them.
pub(super) async fn shutdown(State(api): State<Arc<Api>>) -> Result<Json<Value>, Refusal> {
    let pods = api.store.snapshot().list(&kinds::POD, None).count();
    if pods > 0 {
        return Err(Refusal::Conflict {
            resource: "nodes".to_owned(),
            name: "local".to_owned(),
            why: format!("{pods} pods are still there; delete their workloads first"),
        });
    }
    let node = api
        .node
        .call(async |mut client| client.shutdown(ShutdownRequest {}).await)
        .await;
    // A node that is not there needs no end.
    if let Err(refusal) = &node {
        tracing::info!(error = %refusal, "the node was not asked to end");
    }
    api.shutdown.cancel();
    Ok(Json(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    ))
}
