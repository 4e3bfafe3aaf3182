//! Newer programs for sidecars: taken in, and run in place of those that run.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use weft_proto::weft::node::v1::{ImportProgramRequest, Program, ReplaceProcessRequest};

use super::images::{Pump, line, permit};
use super::machine::container;
use crate::api::Api;
use crate::api::node::START;
use crate::refusal::Refusal;

/// Takes a program in: one line of JSON, `{"done": {"digest": …}}`.
pub(super) async fn import(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Refusal> {
    let chunk = |chunk| ImportProgramRequest { chunk };
    let _permit = permit(&api)?;
    let mut client = api.node.client()?;
    let (messages, pump) = Pump::start(request.into_body(), ImportProgramRequest::default(), chunk);
    let program = pump
        .unless_broken(client.import_program(messages))
        .await??
        .into_inner();
    Ok(line(&json!({"done": {"digest": program.digest}})))
}

/// Makes a program that of sidecars to come.
pub(super) async fn use_for_new(
    State(api): State<Arc<Api>>,
    Path(digest): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let program = Program { digest };
    api.node
        .call(async move |mut client| client.use_program(program).await)
        .await?;
    Ok(Json(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    ))
}

/// Runs a program (`{"program": DIGEST}`) beside the one that a sidecar's container runs, which it is to relieve.
pub(super) async fn replace_process(
    State(api): State<Arc<Api>>,
    Path(container_id): Path<String>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Refusal> {
    let digest = body["program"]
        .as_str()
        .ok_or_else(|| Refusal::BadRequest("program: a digest is needed".to_owned()))?;
    let request = ReplaceProcessRequest {
        container_id,
        program: Some(Program {
            digest: digest.to_owned(),
        }),
    };
    let answer = api
        .node
        .call_within(START, async move |mut client| {
            client.replace_process(request).await
        })
        .await?;
    Ok(Json(container(&answer)))
}
