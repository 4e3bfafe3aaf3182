//! gRPC-Web: gRPC for browsers, which know neither HTTP/2 frames nor trailers.
//!
//! A request becomes one of gRPC; in the response, trailers become the last message of the body. In its text form
//! both bodies are base64.

mod body;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;

use http::header::{self, HeaderMap};
use http::{HeaderValue, StatusCode};
use http_body::Body as _;

use self::body::{FromText, ToWeb};
use super::Passing;
use crate::http::body::Source;
use crate::http::reply::{grpc_status, percent_encoded};
use crate::upstream::body::BodyError;

/// The forms of gRPC-Web.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    Text,
}

impl Form {
    fn of(headers: &HeaderMap, name: header::HeaderName) -> Option<Form> {
        match headers.get(name)?.to_str().ok()? {
            "application/grpc-web" | "application/grpc-web+proto" => Some(Form::Binary),
            "application/grpc-web-text" | "application/grpc-web-text+proto" => Some(Form::Text),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Form::Binary => "application/grpc-web+proto",
            Form::Text => "application/grpc-web-text+proto",
        })
    }
}

/// Makes gRPC of a request of gRPC-Web, and the other way round of its response.
pub(super) fn request(passing: &mut Passing<'_>) {
    let headers = &mut passing.head.headers;
    let Some(asked) = Form::of(headers, header::CONTENT_TYPE) else {
        return;
    };
    let answered = Form::of(headers, header::ACCEPT).unwrap_or(asked);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
    passing.completion.is_grpc_now();
    if asked == Form::Text {
        headers.remove(header::CONTENT_LENGTH);
        let body = std::mem::take(passing.body);
        *passing.body = body.filtered(|inner| FromText::new(inner, BodyError::Unreadable));
    }
    passing.passage.on_response(move |returning| {
        let response = &mut *returning.response;
        let status = response.status();
        let headers = response.headers_mut();
        let is_grpc = crate::snapshot::routes::matches::is_grpc(headers);
        headers.insert(header::CONTENT_TYPE, answered.content_type());
        let has_body = !response.body().is_end_stream();
        if !is_grpc && has_body && !response.headers().contains_key("grpc-status") {
            return explain(status, response);
        }
        if has_body {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            let body = response.body_mut();
            body.filtered(|inner| ToWeb::new(inner, answered == Form::Text));
        }
    });
}

/// What came back is no gRPC: the caller is told in gRPC's way, too.
fn explain(status: StatusCode, response: &mut http::Response<Source>) {
    let message = match response.body() {
        Source::Full(Some(body)) => String::from_utf8_lossy(body).into_owned(),
        _ => format!("the upstream answered {} and no gRPC", status.as_u16()),
    };
    *response.body_mut() = Source::Empty;
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert("grpc-status", HeaderValue::from(grpc_status(status)));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&message)) {
        headers.insert("grpc-message", message);
    }
}
