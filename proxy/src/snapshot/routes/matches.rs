//! Whether a rule is for a request.

use http::HeaderMap;

use super::RequestFacts;
use crate::config::matching::starts_with_ignoring_case;
use crate::config::route::{PathMatch, QueryMatch, QueryTest, RouteMatch};
use crate::present;

/// A path without its query, and the query.
pub(super) fn split_query(path: &str) -> (&str, &str) {
    path.split_once('?').unwrap_or((path, ""))
}

/// Whether a rule is for a request.
pub fn is_for(matches: &RouteMatch, request: &RequestFacts<'_>) -> bool {
    let (path, query) = split_query(request.line.path);
    is_match(matches, path, query, request)
}

/// The same, of a path and a query.
pub(super) fn is_match(
    matches: &RouteMatch,
    path: &str,
    query: &str,
    request: &RequestFacts<'_>,
) -> bool {
    is_path_match(matches, path, request.line.method)
        && matches
            .headers
            .iter()
            .all(|header| header.is_match(request.line, request.headers))
        && matches
            .query
            .iter()
            .all(|parameter| is_query_match(parameter, query))
        && (!matches.grpc || is_grpc(request.headers))
        && matches.share.covers(request.drawn)
        && matches.certificate.is_match(request.is_authenticated)
        && matches
            .metadata
            .iter()
            .all(|wanted| wanted.is_match(request.metadata))
        && matches
            .cookies
            .iter()
            .all(|wanted| wanted.is_match(cookie(request.headers, &wanted.name)))
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.into_iter().find(|(known, _)| *known == name)?;
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    Some(quoted.unwrap_or(value))
}

fn is_path_match(matches: &RouteMatch, path: &str, method: &str) -> bool {
    let is_connect = method == "CONNECT";
    // CONNECT has no path that could match (RFC 9110 §9.3.6).
    if is_connect || matches.path == PathMatch::Connect {
        return is_connect && matches.path == PathMatch::Connect;
    }
    let starts_with = |prefix: &str| match matches.ignore_case {
        true => starts_with_ignoring_case(path, prefix),
        false => path.starts_with(prefix),
    };
    match &matches.path {
        PathMatch::Prefix(prefix) => starts_with(prefix),
        PathMatch::Exact(exact) if matches.ignore_case => path.eq_ignore_ascii_case(exact),
        PathMatch::Exact(exact) => path == &**exact,
        PathMatch::SegmentPrefix(prefix) => {
            starts_with(prefix)
                && (path.len() == prefix.len() || path.as_bytes()[prefix.len()] == b'/')
        }
        PathMatch::Regex(pattern) => pattern.is_match(path),
        PathMatch::Connect => false,
    }
}

/// Whether a query has a parameter as wanted.
pub fn is_query_match(wanted: &QueryMatch, query: &str) -> bool {
    let value = query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .find(|(name, _)| *name == &*wanted.name)
        .map(|(_, value)| value);
    match (&wanted.test, value) {
        (QueryTest::Present, value) => value.is_some(),
        (QueryTest::Absent, value) => value.is_none(),
        (QueryTest::Value(test), value) => value.is_some_and(|value| test.is_match(value)),
    }
}

/// Whether headers are of a gRPC message.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    present::value(headers, &http::header::CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes)
        .and_then(|value| value.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_the_content_type() {
        let is_grpc_of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", http::HeaderValue::from_static(value));
            is_grpc(&headers)
        };

        assert!(is_grpc_of("application/grpc"));
        assert!(is_grpc_of("application/grpc+proto"));
        assert!(!is_grpc_of("application/grpc-web"));
        assert!(!is_grpc_of("application/json"));
    }
}
