//! What a request carries: read up to a limit, within a time, and decoded.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::request::Request;
use crate::refusal::Refusal;

/// The largest object; Kubernetes' own limit is half of it.
pub(super) const OBJECT_BYTES: usize = 3 * 1024 * 1024;
/// The largest set of objects applied at once.
pub(super) const SET_BYTES: usize = 64 * 1024 * 1024;
/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The whole body.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let collected = tokio::time::timeout(ARRIVAL, Limited::new(body, limit).collect())
        .await
        .map_err(|_| Refusal::Timeout("the request's body did not arrive in time".to_owned()))?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::TooLarge { limit })
        }
        Err(error) => Err(Refusal::BadRequest(format!(
            "reading the request's body: {error}"
        ))),
    }
}

/// The body as JSON, whether it was written as JSON or as YAML.
pub(super) fn decode(request: &Request, bytes: &[u8]) -> Result<Value, Refusal> {
    match request.content_type().as_str() {
        ""
        | "application/json"
        | "application/json-patch+json"
        | "application/merge-patch+json"
        | "application/strategic-merge-patch+json" => json(bytes),
        // kubectl sends JSON under this name; YAML is what it says.
        "application/yaml"
        | "application/apply-patch+yaml"
        | "text/yaml"
        | "application/x-yaml" => json(bytes).or_else(|_| yaml(bytes)),
        other => Err(Refusal::UnsupportedMediaType(format!(
            "the body's media type {other:?} is not supported: send application/json or application/yaml"
        ))),
    }
}

fn json(bytes: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::BadRequest(format!("the body is no JSON: {error}")))
}

fn yaml(bytes: &[u8]) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Refusal::BadRequest(format!("the body is no text: {error}")))?;
    serde_saphyr::from_str(text)
        .map_err(|error| Refusal::BadRequest(format!("the body is no YAML: {error}")))
}
