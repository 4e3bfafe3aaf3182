//! Whether the control plane lives, and what it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Api;
use crate::refusal::Refusal;

/// The version of the Kubernetes API whose types are served: clients choose what they ask for by it.
const KUBERNETES: (&str, &str) = ("1", "33");

pub(super) async fn alive() -> &'static str {
    "ok"
}

pub(super) async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, Refusal> {
    if api.shutdown.is_cancelled() {
        return Err(Refusal::Unavailable(
            "the daemon is shutting down".to_owned(),
        ));
    }
    Ok("ok")
}

pub(super) async fn version() -> Json<Value> {
    let (major, minor) = KUBERNETES;
    Json(json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+weft-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}
