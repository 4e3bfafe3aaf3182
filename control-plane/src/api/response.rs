//! Answers: objects, refusals, and what the caller should know besides.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::refusal::Refusal;

/// Most warnings that one answer carries, and most bytes of one.
const MOST_WARNINGS: usize = 16;
const LONGEST_WARNING: usize = 512;

/// A JSON answer.
pub(super) fn json(code: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Adds warnings as Kubernetes does: `Warning: 299 - "…"` (RFC 7234 §5.5), which kubectl prints.
pub(super) fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings.iter().take(MOST_WARNINGS) {
        let text: String = warning
            .chars()
            .filter(|letter| !letter.is_control())
            .take(LONGEST_WARNING)
            .collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append(HeaderName::from_static("warning"), value);
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.code().is_server_error() {
            tracing::error!(error = %self, "a request to the API failed");
        }
        json(self.code(), &self.status())
    }
}
