//! What the body of an answer of the proxy's own is made of: Envoy's `body_format`.

use std::sync::Arc;

use http::HeaderValue;

use crate::telemetry::access_log::format::Format;

/// The content type of a body that nothing is said of.
pub const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
/// The content type of one that is JSON.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How a body is made, and what it is called then.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyFormat {
    /// Text or JSON with operators.
    pub format: Arc<Format>,
    /// The answer's content type.
    pub content_type: HeaderValue,
}
