//! The headers that join the spans of one page into one trace: copied from each request that comes in to
//! each that it causes.

use http::HeaderMap;
use tonic::metadata::MetadataMap;

const HEADERS: [&str; 4] = ["traceparent", "tracestate", "x-request-id", "baggage"];

/// The trace headers of a request, to be sent on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(HeaderMap);

impl Trace {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut kept = HeaderMap::new();
        for name in HEADERS {
            if let Some(value) = headers.get(name) {
                kept.insert(name, value.clone());
            }
        }
        Self(kept)
    }

    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        headers.extend(self.0.clone());
    }

    /// A gRPC request that carries them.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.0.clone());
        request
    }
}
