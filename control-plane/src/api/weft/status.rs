//! The mesh as a whole: what runs, who is connected, what was signed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use weft_proto::weft::node::v1::InfoRequest;

use super::machine::info;
use crate::api::Api;
use crate::kinds;

/// The node is asked, but not waited for: a status without it says more than none.
const NODE: Duration = Duration::from_secs(1);

pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Value> {
    let snapshot = api.store.snapshot();
    let certificates = api.observed.certificates();
    let next_end = certificates
        .iter()
        .filter_map(|certificate| certificate["notAfter"].as_i64())
        .min();
    let ask = api
        .node
        .call(async |mut client| client.info(InfoRequest {}).await);
    let node = match tokio::time::timeout(NODE, ask).await {
        Ok(Ok(answer)) => info(&answer),
        Ok(Err(refusal)) => json!({"error": refusal.to_string()}),
        Err(_) => json!({"error": "the node does not answer"}),
    };
    let count = |kind| snapshot.list(kind, None).count();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptimeSeconds": api.started.elapsed().as_secs(),
        "apiAddress": api.address.to_string(),
        "revision": snapshot.revision(),
        "resourceVersion": snapshot.resource_version().to_string(),
        "node": node,
        "proxies": api.observed.proxies()["proxies"],
        "certificates": {"count": certificates.len(), "nextEnd": next_end},
        "objects": {
            "services": count(&kinds::SERVICE),
            "deployments": count(&kinds::DEPLOYMENT),
            "pods": count(&kinds::POD),
        },
    }))
}

pub(super) async fn proxies(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(api.observed.proxies())
}

pub(super) async fn certificates(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(json!({"certificates": api.observed.certificates()}))
}
