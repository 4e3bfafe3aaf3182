//! Responses of the proxy's own: failures, redirects, direct responses.
//!
//! Callers inside the mesh are told the reason in `x-weft-reason`. A gRPC caller is answered as gRPC: HTTP 200
//! and a status in the headers.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::HttpConnection;
use super::body::Source;
use super::completion::Completion;
use super::failure::Failure;
use super::headers::{self, Head};
use super::{formatting, target};
use crate::config::route::{DirectResponse, PathRewrite, Redirect};
use crate::snapshot::routes::{Selected, split_port};
use crate::telemetry::report::grpc_status_of;
use crate::upstream::explain;

const REASON: HeaderName = HeaderName::from_static("x-weft-reason");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const DROPPED: HeaderName = HeaderName::from_static("x-envoy-unconditional-drop-overload");
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
    if let Some(event) = failure.event() {
        completion.count(event);
    }
    let message = failure.body();
    let is_grpc = completion.replies_grpc();
    let grpc_status = is_grpc.then(|| {
        failure
            .grpc_status()
            .unwrap_or_else(|| grpc_status(failure.status()))
    });
    let mut response = match grpc_status {
        // A gRPC caller is shown nothing else.
        Some(status) if message.is_empty() && !connection.is_published => grpc(status, &reason),
        Some(status) => grpc(status, &String::from_utf8_lossy(&message)),
        None => text(failure.status(), message),
    };
    if failure.is_overflow() {
        let is_overloaded = HeaderValue::from_static("true");
        response.headers_mut().insert(OVERLOADED, is_overloaded);
    }
    if failure.is_dropped() {
        let is_dropped = HeaderValue::from_static("true");
        response.headers_mut().insert(DROPPED, is_dropped);
    }
    if matches!(failure, Failure::RequestBody | Failure::ClientGone) {
        // Where the next request would begin, nobody knows.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    if let Failure::Answered(reply) = failure {
        replace(response.headers_mut(), &reply.headers);
    }
    // Outside the mesh nobody needs to know what is inside.
    if !connection.is_published
        && let Ok(reason) = HeaderValue::from_str(&reason)
    {
        response.headers_mut().insert(REASON, reason);
    }
    tracing::debug!(%reason, flag = %failure.flag(), "request answered locally");
    match failure {
        // Nobody hears the answer: the request has ended without one.
        Failure::ClientGone => drop(completion.take()),
        _ => {
            completion.status(response.status());
            completion.replied(reason, grpc_status);
        }
    }
    response
}

/// Sets headers in place of those of their names; one name may have several values.
fn replace(headers: &mut HeaderMap, set: &[(HeaderName, HeaderValue)]) {
    for (name, _) in set {
        headers.remove(name);
    }
    for (name, value) in set {
        headers.append(name.clone(), value.clone());
    }
}

/// The answer that a route gives itself.
pub(super) fn direct(
    config: &DirectResponse,
    head: &Head,
    completion: &mut Completion,
) -> Response<Source> {
    completion.status(config.status);
    let body = match &config.format {
        None => config.body.clone(),
        Some(format) => {
            let body = String::from_utf8_lossy(&config.body);
            formatting::local_body(format, &body, completion).into()
        }
    };
    if completion.replies_grpc() {
        let status = grpc_status(config.status);
        completion.replied("direct_response".into(), Some(status));
        return grpc(status, &String::from_utf8_lossy(&body));
    }
    completion.replied("direct_response".into(), None);
    let mut response = text(config.status, body);
    let headers = response.headers_mut();
    if let Some(content_type) = &config.content_type {
        headers.insert(header::CONTENT_TYPE, content_type.clone());
    }
    if let Some(location) = own_location(config.status, head) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// Where an answer says that something is: as in Envoy, what was asked for (RFC 9110 §15.3.2).
fn own_location(status: StatusCode, head: &Head) -> Option<HeaderValue> {
    let tells = status == StatusCode::CREATED || status.is_redirection();
    let location = || format!("{}://{}{}", head.scheme, head.authority(), head.path());
    tells.then(|| HeaderValue::try_from(location()).ok())?
}

/// The caller is sent elsewhere.
pub(super) fn redirect(
    config: &Redirect,
    head: &Head,
    selected: Selected<'_>,
    completion: &mut Completion,
) -> Response<Source> {
    let scheme = config.scheme.as_deref().unwrap_or(head.scheme);
    let host = match &config.host {
        Some(host) => host,
        None if config.keeps_port => head.authority(),
        None => host_of(head, scheme, config.port),
    };
    let port = config
        .port
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let path = redirected_path(config, head, selected, completion);
    let mut response = Response::new(Source::Empty);
    let grpc_status = completion
        .replies_grpc()
        .then(|| grpc_status(config.status));
    match grpc_status {
        Some(status) => response = grpc(status, ""),
        None => *response.status_mut() = config.status,
    }
    if let Ok(location) = HeaderValue::try_from(format!("{scheme}://{host}{port}{path}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    completion.replied("direct_response".into(), grpc_status);
    response
}

/// The request's host, without its port where there is another, or the port is the old scheme's own.
fn host_of<'a>(head: &'a Head, scheme: &str, new_port: Option<u16>) -> &'a str {
    let authority = head.authority();
    let Some((host, port)) = split_port(authority) else {
        return authority;
    };
    let before = headers::text(head.headers.get("x-forwarded-proto"));
    let is_own = matches!((before, port), ("https", "443") | ("http", "80"));
    if new_port.is_some() || (scheme != before && is_own) {
        host
    } else {
        authority
    }
}

fn redirected_path(
    config: &Redirect,
    head: &Head,
    selected: Selected<'_>,
    completion: &mut Completion,
) -> String {
    let matches = &selected.route.matches;
    let mut path = match &config.path {
        // Envoy: the query of the new path goes before the request's, and stays.
        Some(PathRewrite::Full(path)) if path.contains('?') => return path.to_string(),
        Some(PathRewrite::Formatted(template)) => {
            let path = formatting::request_text(template, head, completion);
            target::rewritten(head.path(), &PathRewrite::Full(path.into()), matches)
        }
        Some(rewrite @ PathRewrite::Full(_)) => target::rewritten(head.path(), rewrite, matches),
        Some(rewrite) => {
            let path = target::rewritten(head.path(), rewrite, matches);
            if let Ok(path) = path.parse() {
                completion.rewritten(&path);
            }
            path
        }
        None => head.path().to_owned(),
    };
    if config.strip_query {
        path.truncate(path.find('?').unwrap_or(path.len()));
    }
    path
}

fn text(status: StatusCode, body: Bytes) -> Response<Source> {
    let mut response = Response::new(Source::Empty);
    *response.status_mut() = status;
    if !body.is_empty() {
        *response.body_mut() = Source::Full(Some(body));
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
    if !message.is_empty()
        && let Ok(message) = HeaderValue::try_from(percent_encoded(message))
    {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

/// gRPC over HTTP/2, "Responses": printable ASCII but `%` stays as it is.
pub(super) fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The gRPC status for an HTTP status.
pub(super) fn grpc_status(status: StatusCode) -> u32 {
    grpc_status_of(status.as_u16())
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
