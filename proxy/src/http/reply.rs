//! Answers of the proxy's own: failures, redirects, direct responses.
//!
//! `exchange.rs` has one made where no upstream has answered, lets the route change its headers, and has it sent: only
//! then it gets the form that its caller understands. Callers inside the mesh are told the reason in
//! `x-weft-reason`. A gRPC caller is answered as gRPC: HTTP 200 and a status in the headers.

mod mapped;
mod of_route;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::HttpConnection;
use super::body::Source;
use super::completion::Completion;
use super::failure::Failure;
use crate::config::body_format::TEXT;
use crate::config::local_replies::LocalReplies;
use crate::telemetry::report::grpc_status_of;
use crate::upstream::explain;

const REASON: HeaderName = HeaderName::from_static("x-weft-reason");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const DROPPED: HeaderName = HeaderName::from_static("x-envoy-unconditional-drop-overload");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why the proxy answers itself.
#[derive(Debug)]
pub(super) struct Why {
    /// For people.
    pub(super) reason: Arc<str>,
    /// In Envoy's words.
    pub(super) details: Arc<str>,
}

impl Why {
    /// Where Envoy's word says it all.
    fn just(word: &str) -> Self {
        let word: Arc<str> = word.into();
        Why {
            reason: Arc::clone(&word),
            details: word,
        }
    }
}

/// An answer of the proxy's own, before it has the form in which it is sent.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
    /// What a gRPC caller is told in place of what corresponds to the status.
    grpc_status: Option<u32>,
    /// Why there is no other.
    why: Why,
    /// Whether callers are told the reason.
    explains: bool,
    /// Whether it stays as it is, whatever the configuration makes of such answers.
    is_final: bool,
}

impl Reply {
    /// Without headers.
    fn new(status: StatusCode, body: Bytes, why: Why) -> Self {
        Reply {
            status,
            headers: HeaderMap::new(),
            body,
            grpc_status: None,
            why,
            explains: false,
            is_final: false,
        }
    }

    /// From what has become of a request in place of a response; the one place where a failure becomes one.
    pub(super) fn to_failure(
        failure: &Failure,
        connection: &HttpConnection,
        completion: &mut Completion,
    ) -> Self {
        let reason: Arc<str> = explain(failure).into();
        completion.flag(failure.flag());
        if let Some(event) = failure.event() {
            completion.count(event);
        }
        tracing::debug!(%reason, flag = %failure.flag(), "request answered locally");
        // Outside the mesh nobody needs to know what is inside.
        let explains = !connection.is_published;
        let mut headers = headers_of(failure);
        let body = failure.body(completion.attempts());
        if explains && let Ok(reason) = HeaderValue::from_str(&reason) {
            headers.insert(REASON, reason);
        }
        let why = Why {
            details: failure.details(),
            reason,
        };
        if matches!(failure, Failure::ClientGone) {
            // Nobody hears the answer: the request has ended without one.
            completion.replied(&why);
            drop(completion.take());
        }
        Reply {
            headers,
            grpc_status: failure.grpc_status(),
            explains,
            is_final: matches!(failure, Failure::Answered(reply) if reply.is_final),
            ..Reply::new(failure.status(), body, why)
        }
    }

    /// Gives it its form: as the configuration says of such answers, and as its caller speaks.
    pub(super) fn sent(
        mut self,
        replies: Option<&LocalReplies>,
        completion: &mut Completion,
    ) -> Response<Source> {
        completion.status(self.status);
        completion.replied(&self.why);
        let replies = replies.filter(|_| !self.is_final);
        self.give_type(replies, completion);
        match completion.replies_grpc() {
            true => self.grpc(completion),
            false => {
                if completion.method() == Some(&Method::HEAD) && !self.body.is_empty() {
                    // Only the head is asked for; of HTTP/2, too, nobody else leaves the body out.
                    let length = self.body.len().into();
                    self.headers.insert(header::CONTENT_LENGTH, length);
                    self.body = Bytes::new();
                }
                with(self.status, self.headers, self.body)
            }
        }
    }

    /// As in Envoy: what a body was called before it was changed, it is called no more, unless whoever changes it says so.
    fn give_type(&mut self, replies: Option<&LocalReplies>, completion: &mut Completion) {
        let mut content_type = TEXT;
        let mut is_other = false;
        if let Some(replies) = replies {
            (content_type, is_other) = mapped::change(self, replies, completion);
        }
        // RFC 9110 §15.3.5 and §15.4.5.
        if matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        ) {
            self.body = Bytes::new();
        }
        if self.body.is_empty() {
            self.headers.remove(header::CONTENT_TYPE);
        } else if is_other || !self.headers.contains_key(header::CONTENT_TYPE) {
            self.headers.insert(header::CONTENT_TYPE, content_type);
        }
    }

    /// HTTP 200 and a status in the headers, with the body as its message.
    fn grpc(mut self, completion: &mut Completion) -> Response<Source> {
        let status = self.grpc_status.unwrap_or_else(|| grpc_status(self.status));
        self.headers.insert(header::CONTENT_TYPE, GRPC);
        self.headers.entry(GRPC_STATUS).or_insert(status.into());
        let message = match self.body.is_empty() && self.explains {
            // A gRPC caller is shown nothing else.
            true => percent_encoded(&self.why.reason),
            // The end of its line is no part of the message.
            false => {
                let body = self.body.strip_suffix(b"\n").unwrap_or(&self.body);
                percent_encoded(&String::from_utf8_lossy(body))
            }
        };
        if !message.is_empty()
            && completion.method() != Some(&Method::HEAD)
            && let Ok(message) = HeaderValue::try_from(message)
        {
            self.headers.insert(GRPC_MESSAGE, message);
        }
        completion.replied_grpc(status);
        with(StatusCode::OK, self.headers, Bytes::new())
    }
}

fn with(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response<Source> {
    let mut response = Response::new(match body.is_empty() {
        true => Source::Empty,
        false => Source::Full(Some(body)),
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What an answer to a failure says beside its status.
fn headers_of(failure: &Failure) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if failure.is_overflow() {
        headers.insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    if failure.is_dropped() {
        headers.insert(DROPPED, HeaderValue::from_static("true"));
    }
    if matches!(failure, Failure::RequestBody | Failure::ClientGone) {
        // Where the next request would begin, nobody knows.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Failure::Answered(reply) = failure {
        replace(&mut headers, &reply.headers);
    }
    headers
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
