//! Answers that a route gives itself: redirects, and direct responses.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::{Reply, Why};
use crate::config::route::{DirectResponse, PathRewrite, Redirect};
use crate::http::completion::Completion;
use crate::http::headers::{self, Head};
use crate::http::{formatting, target};
use crate::snapshot::routes::{Selected, split_port};

const REASON: &str = "direct_response";

impl Reply {
    /// The answer that a route gives itself.
    pub(in crate::http) fn direct(
        config: &DirectResponse,
        head: &Head,
        completion: &mut Completion,
    ) -> Self {
        completion.status(config.status);
        let mut reply = Reply::new(config.status, config.body.clone(), Why::just(REASON));
        let headers = &mut reply.headers;
        if let Some(made) = &config.body_format {
            reply.body = formatting::local_body(&made.format, &config.body, headers, completion);
            headers.insert(header::CONTENT_TYPE, made.content_type.clone());
        }
        if let Some(location) = own_location(config.status, head) {
            headers.insert(header::LOCATION, location);
        }
        reply
    }

    /// The caller is sent elsewhere.
    pub(in crate::http) fn redirect(
        config: &Redirect,
        head: &Head,
        selected: Selected<'_>,
        completion: &mut Completion,
    ) -> Self {
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
        let mut reply = Reply::new(config.status, Bytes::new(), Why::just(REASON));
        if let Ok(location) = HeaderValue::try_from(format!("{scheme}://{host}{port}{path}")) {
            reply.headers.insert(header::LOCATION, location);
        }
        reply
    }
}

/// Where an answer says that something is: as in Envoy, what was asked for (RFC 9110 §15.3.2).
fn own_location(status: StatusCode, head: &Head) -> Option<HeaderValue> {
    let tells = status == StatusCode::CREATED || status.is_redirection();
    let location = || format!("{}://{}{}", head.scheme, head.authority(), head.path());
    tells.then(|| HeaderValue::try_from(location()).ok())?
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
