//! What is fuzzed of requests: paths and hosts in one spelling, what callers ask for, what ends with a connection.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::failure::Failure;
use super::headers::Head;
use super::{asked, path, retry, target};
use crate::config::matching::RequestLine;
use crate::config::paths::{EscapedSlashes, HostOptions, PathOptions, StripPort};
use crate::config::retry::{AskedBackOff, ResetFormat, ResetHeader};
use crate::config::route::limits::{GrpcTimeout, StreamDuration};
use crate::config::route::{Forward, PathMatch, PathRewrite, RouteMatch};
use crate::fuzzing::{Choices, Target};
use crate::hop_by_hop;

/// Those of filters.
pub(crate) const OF_FILTERS: [Target; 6] = super::filter::fuzzing::TARGETS;

pub(crate) const TARGETS: [Target; 7] = [
    Target::new("path", path),
    Target::new("host", host),
    Target::new("rewrite", rewrite),
    Target::new("hop_by_hop", hop_by_hop),
    Target::new("asked", asked),
    Target::new("http1_request", super::serve::http1::fuzzing::run),
    Target::new("forwarded_for", super::forwarding::fuzzing::run),
];

fn head(path: PathAndQuery) -> Head {
    Head {
        scheme: "http",
        method: Method::GET,
        path,
        authority: None,
        headers: HeaderMap::new(),
        uri: Uri::default(),
        extensions: Default::default(),
    }
}

const SLASHES: [EscapedSlashes; 4] = [
    EscapedSlashes::Keep,
    EscapedSlashes::Reject,
    EscapedSlashes::Redirect,
    EscapedSlashes::Unescape,
];

/// Who normalises once has nothing left to normalise, and whoever decodes the path later finds nothing that was to
/// be taken out.
fn path(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let options = PathOptions {
        escaped_slashes: *choices.one(&SLASHES),
        normalize: choices.is(),
        merge_slashes: choices.is(),
    };
    let Ok(given) = PathAndQuery::try_from(choices.rest()) else {
        return;
    };
    if !given.as_str().starts_with('/') {
        return;
    }
    let mut request = head(given.clone());
    match path::normalize(&mut request, options) {
        Ok(()) => check_path(&given, &request.path, options),
        Err(Failure::Answered(reply)) => {
            let is_redirect = reply.status == http::StatusCode::TEMPORARY_REDIRECT;
            assert!(!is_redirect || options.escaped_slashes == EscapedSlashes::Redirect);
        }
        Err(other) => panic!("{other}"),
    }
}

fn check_path(given: &PathAndQuery, made: &PathAndQuery, options: PathOptions) {
    let path = made.path();
    let lower = path.to_ascii_lowercase();
    assert_eq!(given.query(), made.query(), "the query stays");
    assert!(path.starts_with('/'), "{path}");
    if options.merge_slashes {
        assert!(!path.contains("//"), "{given} became {made}");
    }
    if options.escaped_slashes != EscapedSlashes::Keep {
        let is_left = lower.contains("%2f") || lower.contains("%5c");
        assert!(!is_left, "{given} became {made}");
    }
    if options.normalize {
        let mut segments = lower.split('/').map(|segment| segment.replace("%2e", "."));
        assert!(
            !segments.any(|segment| segment == "." || segment == ".."),
            "{given} became {made}"
        );
        assert!(!path.contains('\\'), "{given} became {made}");
    }
    let mut again = head(made.clone());
    assert!(
        path::normalize(&mut again, options).is_ok(),
        "{given} became {made}"
    );
    assert_eq!(&again.path, made, "{given}");
}

/// A host in one spelling has no other.
fn host(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let options = HostOptions {
        strip_trailing_dot: choices.is(),
        strip_port: *choices.one(&[StripPort::None, StripPort::Matching, StripPort::Any]),
    };
    let Ok(given) = HeaderValue::from_bytes(choices.rest()) else {
        return;
    };
    let mut request = head(PathAndQuery::from_static("/"));
    request.authority = Some(given);
    let before = request.authority().to_owned();
    path::normalize_host(&mut request, options, 80);
    assert!(request.authority().len() <= before.len());
    assert!(before.starts_with(request.authority().split(':').next().unwrap_or_default()));
}

/// A rewritten path is a path, or is refused; the query stays.
fn rewrite(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let pieces = ["/", "a", "b", "/a", "é", "%2f", "?", "#", "//"];
    let matched = choices.text(&pieces[..5], 3).into();
    let matched = match choices.below(3) {
        0 => PathMatch::Prefix(matched),
        1 => PathMatch::SegmentPrefix(matched),
        _ => PathMatch::Exact(matched),
    };
    let new = choices.text(&pieces, 3).into();
    let rewrite = match choices.is() {
        true => PathRewrite::Prefix(new),
        false => PathRewrite::Full(new),
    };
    let Ok(given) = std::str::from_utf8(choices.rest()) else {
        return;
    };
    let matches = RouteMatch {
        path: matched,
        ..RouteMatch::prefix("/")
    };
    let made = target::rewritten(given, &rewrite, &matches);
    assert!(made.starts_with('/'), "{made}");
    if let Some((_, query)) = given.split_once('?') {
        assert!(made.ends_with(&format!("?{query}")), "{made}");
    }
}

/// Lines `name: value`; what is no header is passed over.
fn headers(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// RFC 9110 §7.6.1: nothing that is for one connection goes on, nor what `Connection` names.
fn hop_by_hop(bytes: &[u8]) {
    let before = headers(bytes);
    let mut after = before.clone();
    hop_by_hop::end(&mut after);
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        assert!(!after.contains_key(name), "{name}");
    }
    let named = before.get_all(header::CONNECTION).iter();
    let named = named.filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|value| value.split(',')).map(str::trim) {
        let is_te = name.eq_ignore_ascii_case("te");
        assert!(
            is_te || name.is_empty() || !after.contains_key(name),
            "{name}"
        );
    }
    let te: Vec<_> = after.get_all(header::TE).iter().collect();
    let is_trailers = |value: &&HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    assert!(te.len() <= 1 && te.iter().all(is_trailers), "{te:?}");
    for (name, value) in &after {
        assert!(name == header::TE || before.get_all(name).iter().any(|is| is == value));
    }
}

/// What callers ask for holds within the limits of the route, and what is told the upstream can be read.
fn asked(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let limit = |byte: u8| Duration::from_secs(u64::from(byte));
    let grpc = GrpcTimeout {
        max: limit(choices.byte()),
        offset: choices.is().then(|| Duration::from_millis(10)),
    };
    let stream = StreamDuration {
        max: choices.is().then(|| Duration::from_secs(3)),
        grpc_max: choices.is().then(|| limit(choices.byte())),
        grpc_offset: choices.is().then(|| Duration::from_secs(1)),
    };
    let forward = Forward {
        grpc_timeout: Some(grpc),
        ..Forward::to("c")
    };
    let mut headers = headers(choices.rest());
    check_waiting(&headers);
    let asked_limit = asked::stream_duration((&mut headers.clone(), false), Some(stream), None);
    let max = stream.grpc_max.filter(|max| !max.is_zero());
    if let (Some(limit), Some(max)) = (asked_limit, max) {
        assert!(limit <= max.max(stream.max.unwrap_or_default()));
    }
    let asking = asked::Asking::of(&headers);
    let asked = (&mut headers.clone(), asking);
    let timeouts = asked::timeouts(asked, &forward, None, true, false);
    if let (Some(one), Some(all)) = (timeouts.per_try, timeouts.global) {
        assert!(one < all);
    }
    if let Some(told) = timeouts.expected(Duration::from_secs(1), false) {
        let mut sent = HeaderMap::new();
        asked::tell_grpc(&mut sent, told);
        assert!(
            asked::grpc_timeout(&sent).is_some_and(|read| read <= told),
            "{sent:?}"
        );
    }
    let line = RequestLine {
        method: "GET",
        path: "/",
        authority: "a",
        scheme: "http",
    };
    if let Some(policy) = asked::policy((&mut headers, asking), line, None) {
        assert!(policy.on != Default::default());
        let _ = retry::wait(
            policy.back_off,
            policy.retries,
            &mut SmallRng::seed_from_u64(1),
        );
    }
    assert!(!headers.contains_key("x-envoy-retry-on"));
}

/// What an upstream asks for is waited for no longer than half as long again as the longest.
fn check_waiting(headers: &HeaderMap) {
    for format in [ResetFormat::Seconds, ResetFormat::UnixTimestamp] {
        let config = AskedBackOff {
            headers: vec![ResetHeader {
                name: header::RETRY_AFTER,
                format,
            }],
            max: Duration::from_secs(60),
        };
        let now = Duration::from_secs(1_700_000_000);
        let random = &mut SmallRng::seed_from_u64(1);
        if let Some(wait) = retry::asked_wait(&config, headers, now, random) {
            assert!(wait <= Duration::from_secs(90), "{wait:?}");
        }
    }
}
