//! Responses of the proxy's own: failures, redirects, direct responses.
//!
//! Callers inside the mesh are told the reason in `x-weft-reason`. A gRPC caller is answered as gRPC: HTTP 200
//! and a status in the headers.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Response, StatusCode};

use super::HttpConnection;
use super::body::Source;
use super::completion::Completion;
use super::failure::Failure;
use super::headers::Head;
use super::target;
use crate::config::route::{DirectResponse, Redirect};
use crate::snapshot::routes::{Selected, without_port};
use crate::upstream::explain;

const REASON: HeaderName = HeaderName::from_static("x-weft-reason");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The one place where a failure becomes a response.
pub(super) fn to_failure(
    failure: &Failure,
    connection: &HttpConnection,
    completion: &mut Completion,
) -> Response<Source> {
    let reason: Arc<str> = explain(failure).into();
    completion.flag(failure.flag());
    let (asked_status, message) = match failure {
        Failure::Answered(reply) => (reply.grpc_status, &*reply.body),
        _ => (None, reason.as_bytes()),
    };
    let is_grpc = completion.is_grpc() || asked_status.is_some();
    let grpc_status =
        is_grpc.then(|| asked_status.unwrap_or_else(|| grpc_status(failure.status())));
    let mut response = match grpc_status {
        Some(status) => grpc(status, &String::from_utf8_lossy(message)),
        None => text(failure.status(), message),
    };
    if let Failure::Answered(reply) = failure {
        for (name, value) in &reply.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    // Outside the mesh nobody needs to know what is inside.
    if !connection.is_published
        && let Ok(reason) = HeaderValue::from_str(&reason)
    {
        response.headers_mut().insert(REASON, reason);
    }
    tracing::debug!(%reason, flag = %failure.flag(), "request answered locally");
    completion.replied(reason, grpc_status);
    response
}

/// The answer that a route gives itself.
pub(super) fn direct(config: &DirectResponse, completion: &mut Completion) -> Response<Source> {
    if completion.is_grpc() {
        let status = grpc_status(config.status);
        let message = String::from_utf8_lossy(&config.body);
        completion.replied("the route answers itself".into(), Some(status));
        return grpc(status, &message);
    }
    text(config.status, &config.body)
}

/// The caller is sent elsewhere.
pub(super) fn redirect(
    config: &Redirect,
    head: &Head,
    selected: Selected<'_>,
    connection: &HttpConnection,
) -> Response<Source> {
    let scheme = match &config.scheme {
        Some(scheme) => scheme,
        None if connection.is_tls => "https",
        None => "http",
    };
    let host = match (&config.host, config.port) {
        (Some(host), _) => host,
        // Another scheme, or another port, has another port.
        (None, Some(_)) => without_port(head.authority()),
        (None, None) if config.scheme.is_some() => without_port(head.authority()),
        (None, None) => head.authority(),
    };
    let port = config
        .port
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let mut path = match &config.path {
        Some(rewrite) => target::rewritten(head.path(), rewrite, &selected.route.matches),
        None => head.path().to_owned(),
    };
    if config.strip_query {
        path.truncate(path.find('?').unwrap_or(path.len()));
    }
    let mut response = Response::new(Source::Empty);
    *response.status_mut() = config.status;
    if let Ok(location) = HeaderValue::try_from(format!("{scheme}://{host}{port}{path}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn text(status: StatusCode, body: &[u8]) -> Response<Source> {
    let mut response = Response::new(Source::Empty);
    *response.status_mut() = status;
    if !body.is_empty() {
        *response.body_mut() = Source::Full(Some(Bytes::copy_from_slice(body)));
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    }
    response
}

fn grpc(status: u32, message: &str) -> Response<Source> {
    let mut response = Response::new(Source::Empty);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(GRPC_STATUS, HeaderValue::from(status));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

/// gRPC over HTTP/2, "Responses": printable ASCII but `%` stays as it is.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The gRPC status for an HTTP status ("HTTP to gRPC Status Code Mapping" of gRPC).
pub(super) fn grpc_status(status: StatusCode) -> u32 {
    const UNKNOWN: u32 = 2;
    const PERMISSION_DENIED: u32 = 7;
    const UNIMPLEMENTED: u32 = 12;
    const INTERNAL: u32 = 13;
    const UNAVAILABLE: u32 = 14;
    const UNAUTHENTICATED: u32 = 16;
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_message_is_printable() {
        assert_eq!(percent_encoded("100% \u{e9}"), "100%25 %C3%A9");
    }

    #[test]
    fn an_unavailable_upstream_is_unavailable_in_grpc() {
        assert_eq!(grpc_status(StatusCode::SERVICE_UNAVAILABLE), 14);
        assert_eq!(grpc_status(StatusCode::NOT_FOUND), 12);
    }
}
