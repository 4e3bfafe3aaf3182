//! A service that answers by the status of HTTP.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Request, Response, StatusCode, Uri};

use super::super::Passing;
use super::super::call::{Asked, CallFailure};
use super::{Allowed, Change, Decision, Denied, ExtAuthzConfig, PARTIAL_BODY, Said};
use crate::config::filter::ext_authz::HttpAuthz;
use crate::config::headers::HeaderAction;
use crate::config::matching::TextMatch;

/// Headers that are only about the answer's own connection or body.
const OWN: [HeaderName; 4] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::HOST,
];

/// The request's method and path, and the headers that may be said.
pub(super) fn question(
    config: &ExtAuthzConfig,
    service: &HttpAuthz,
    said: &Said,
    passing: &Passing<'_>,
) -> Result<Request<Bytes>, CallFailure> {
    let line = passing.line();
    let path = match &*service.path_override {
        "" => format!("{}{}", service.path_prefix, line.path),
        path => path.to_owned(),
    };
    let uri = Uri::builder()
        .scheme(line.scheme)
        .authority(line.authority)
        .path_and_query(path)
        .build()?;
    let mut question = Request::new(said.bytes.clone());
    *question.method_mut() = passing.head.method.clone();
    *question.uri_mut() = uri;
    let allowed = config
        .allowed_headers
        .as_deref()
        .unwrap_or(&service.allowed);
    let is_said = |name: &HeaderName| {
        let is_in = |tests: &[TextMatch]| tests.iter().any(|test| test.is_match(name.as_str()));
        // Authorization always is; lengths are the question's own.
        (*name == header::AUTHORIZATION || is_in(allowed))
            && !is_in(&config.disallowed_headers)
            && !OWN.contains(name)
    };
    let headers = question.headers_mut();
    for (name, value) in &passing.head.headers {
        if is_said(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in &service.headers {
        headers.insert(name.clone(), value.clone());
    }
    if !said.bytes.is_empty() {
        let is_partial = if said.is_partial { "true" } else { "false" };
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(is_partial));
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(said.bytes.len()));
    Ok(question)
}

pub(super) async fn ask(
    asked: Asked<'_>,
    service: &HttpAuthz,
    question: Request<Bytes>,
) -> Result<Decision, CallFailure> {
    asked
        .http(question)
        .await
        .and_then(|answer| decision(service, answer))
}

/// 200 is a permission, a server's error none, and all else a denial.
fn decision(service: &HttpAuthz, answer: Response<Bytes>) -> Result<Decision, CallFailure> {
    let (parts, body) = answer.into_parts();
    let headers = &parts.headers;
    let metadata = matching(headers, &service.metadata)
        .filter_map(|(name, value)| {
            let text = value.to_str().ok()?;
            Some((name.as_str().to_owned(), text.into()))
        })
        .collect();
    if parts.status.is_server_error() {
        return Err(CallFailure::Status(parts.status));
    }
    if parts.status != StatusCode::OK {
        let told = headers.iter().filter(|(name, _)| is_told(service, name));
        return Ok(Decision::Denied(Denied {
            status: parts.status,
            headers: told
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            body,
            metadata,
        }));
    }
    let replaced = changes(headers, &service.upstream, HeaderAction::Overwrite);
    let appended = changes(headers, &service.upstream_append, HeaderAction::Append);
    Ok(Decision::Allowed(Allowed {
        request: replaced.chain(appended).collect(),
        appends_anyway: true,
        response: changes(headers, &service.client_on_success, HeaderAction::Append).collect(),
        metadata,
        ..Allowed::default()
    }))
}

/// What a denial tells the caller: everything, unless it is said what.
fn is_told(service: &HttpAuthz, name: &HeaderName) -> bool {
    if OWN.contains(name) {
        return false;
    }
    let always = [
        header::WWW_AUTHENTICATE,
        header::LOCATION,
        header::PROXY_AUTHENTICATE,
    ];
    service.client.is_empty()
        || always.contains(name)
        || service
            .client
            .iter()
            .any(|test| test.is_match(name.as_str()))
}

fn matching<'a>(
    headers: &'a HeaderMap,
    tests: &'a [TextMatch],
) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
    let is_match = |name: &HeaderName| tests.iter().any(|test| test.is_match(name.as_str()));
    headers.iter().filter(move |(name, _)| is_match(name))
}

fn changes<'a>(
    headers: &'a HeaderMap,
    tests: &'a [TextMatch],
    action: HeaderAction,
) -> impl Iterator<Item = Change> + 'a {
    matching(headers, tests).map(move |(name, value)| Change {
        name: name.clone(),
        value: value.clone(),
        action,
    })
}
