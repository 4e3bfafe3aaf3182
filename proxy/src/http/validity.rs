//! Requests that are refused before anything is made of them: two readers could see them differently, or they name
//! no host.
//!
//! They have been parsed, and parsers are more lenient than a proxy may be.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};

use super::Spoken;
use super::failure::{Failure, LocalReply};
use crate::config::http::UnderscoredNames;
use crate::config::http1::Http1Options;
use crate::http2::shared;
use crate::present;
use crate::telemetry::managers::HttpEvent;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::HttpVersion;

/// Gives a request of HTTP/1.0 that names no host the one that is meant.
pub(super) fn complete<B>(request: &mut Request<B>, options: &Http1Options) {
    if let Some(host) = &options.default_host
        && request.version() == Version::HTTP_10
        && !request.headers().contains_key(HOST)
    {
        request.headers_mut().insert(HOST, host.clone());
    }
}

/// What is wrong with a request, if anything.
pub(super) fn objection<B>(request: &Request<B>, options: &Http1Options) -> Option<Failure> {
    version(request, options)
        .or_else(|| coding(request))
        .or_else(|| target(request))
        .or_else(|| absolute(request, options))
        .or_else(|| host(request))
        .or_else(|| path(request))
}

/// What is wrong with the names of a request's headers, if anything; those that are to be dropped are gone then.
pub(super) fn underscored<B>(
    request: &mut Request<B>,
    action: UnderscoredNames,
) -> Option<Failure> {
    if action == UnderscoredNames::Kept {
        return None;
    }
    let names = request.headers().keys();
    let underscored: Vec<HeaderName> = names
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    if underscored.is_empty() {
        return None;
    }
    if action == UnderscoredNames::Refused {
        let reason = "header names with underscores are not accepted here";
        let details = match is_http2(request) {
            true => "http2.unexpected_underscore",
            false => "http1.unexpected_underscore",
        };
        let flag = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
        return Some(refusal(StatusCode::BAD_REQUEST, details, reason, flag));
    }
    for name in underscored {
        request.headers_mut().remove(name);
    }
    None
}

/// HTTP/1.0 is answered where that is allowed.
fn version<B>(request: &Request<B>, options: &Http1Options) -> Option<Failure> {
    let is_old = request.version() == Version::HTTP_10 && !options.accepts_http10;
    is_old.then(|| {
        let reason = "HTTP/1.0 is not accepted here";
        let flag = ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR;
        refusal(StatusCode::UPGRADE_REQUIRED, "low_version", reason, flag)
    })
}

/// The absolute form is a proxy's, and may be refused.
fn absolute<B>(request: &Request<B>, options: &Http1Options) -> Option<Failure> {
    let is_refused =
        options.refuses_absolute_url && is_http1(request) && request.uri().scheme().is_some();
    is_refused.then(|| {
        let mut reply = LocalReply::new(StatusCode::NOT_FOUND, NO_PATH)
            .because("a target with a host is not accepted here");
        reply.event = Some(HttpEvent::NonRelativePath);
        Failure::Answered(Box::new(reply))
    })
}

/// Envoy's words for a target that is no path, and for what is no HTTP/1.
const NO_PATH: &str = "absolute_path_rejected";
const CODEC_ERROR: &str = "http1.codec_error";
/// Pseudo-headers of a request of HTTP/2, which count as headers there.
const PSEUDO_HEADERS: usize = 4;

/// More headers than a request may have; those of HTTP/1 are counted as they are read.
pub(super) fn too_many_headers<B>(
    request: &Request<B>,
    spoken: Spoken,
    max_headers: usize,
) -> Option<Failure> {
    let others = match spoken.requests {
        HttpVersion::Http1 => 0,
        HttpVersion::Http2 => PSEUDO_HEADERS,
    };
    let is_counted = spoken.version == HttpVersion::Http2;
    (is_counted && request.headers().len() + others > max_headers).then(|| {
        refusal(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "http2.too_many_headers",
            "it has more headers than a request may have",
            ResponseFlags::default(),
        )
    })
}

/// A head that is larger than one may be, where it has come over a connection that requests share: others are bounded as they
/// are read.
pub(super) fn too_large<B>(
    request: &Request<B>,
    spoken: Spoken,
    max_bytes: u32,
) -> Option<Failure> {
    let path = request.uri().path_and_query().map(PathAndQuery::as_str);
    let size = || path.map_or(0, str::len) + shared::size(request.headers());
    let is_too_large = spoken == Spoken::SHARED_HTTP1 && size() > max_bytes as usize;
    is_too_large.then(|| {
        refusal(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "http1.headers_too_large",
            "its head is larger than one may be",
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        )
    })
}

/// More headers than a response of HTTP/2 may have, of which the status is one.
pub(super) fn has_too_many_headers<B>(response: &Response<B>, max_headers: usize) -> bool {
    response.version() == Version::HTTP_2 && response.headers().len() + 1 > max_headers
}

/// What is wrong with the head of a response of HTTP/1.1, if anything: a switch of protocols that nobody asked for, and
/// a framing that two readers could see differently (RFC 9112, §6.1 and §6.3).
pub(super) fn misframed<B>(response: &Response<B>, may_switch: bool) -> Option<&'static str> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !may_switch {
        return Some("it switches protocols, which nobody asked for");
    }
    let headers = response.headers();
    if !present::has(headers, &TRANSFER_ENCODING) {
        return None;
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let first = codings.next()?;
    let is_chunked = first.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    match is_chunked {
        false => Some("its transfer-encoding is not chunked alone"),
        true if headers.contains_key(CONTENT_LENGTH) => Some("it has a length and is chunked"),
        true => None,
    }
}

/// Only `chunked`, and once: any other coding would have to be undone or told to the upstream (RFC 9112, §6.1).
fn coding<B>(request: &Request<B>) -> Option<Failure> {
    if !present::has(request.headers(), &TRANSFER_ENCODING) {
        return None;
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let first = codings.next()?;
    let is_chunked = first.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    (!is_chunked).then(|| {
        refusal(
            StatusCode::NOT_IMPLEMENTED,
            "http1.invalid_transfer_encoding",
            "transfer-encoding is not chunked alone",
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        )
    })
}

/// The authority form of a target is for CONNECT alone, and CONNECT has no other (RFC 9112, §3.2.3).
fn target<B>(request: &Request<B>) -> Option<Failure> {
    let uri = request.uri();
    let is_authority = uri.scheme().is_none() && uri.authority().is_some();
    let is_connect = request.method() == Method::CONNECT;
    let has_bad_port = uri.authority().is_some_and(|authority| {
        let port = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = port.strip_prefix(authority.host()).unwrap_or_default();
        !port.is_empty() && authority.port_u16().is_none()
    });
    let is_wrong = (is_authority != is_connect || has_bad_port) && is_http1(request);
    is_wrong.then(|| {
        refusal(
            StatusCode::BAD_REQUEST,
            CODEC_ERROR,
            "the target has not the form that its method asks for",
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        )
    })
}

/// Whether a value names a host, or none: RFC 9110, §7.2. What is one by its looks is not taken apart.
fn is_host(host: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let end = host.iter().position(|byte| !is_of_name(byte));
    match end.map(|end| host.split_at(end)) {
        None => true,
        Some((name, [b':', port @ ..]))
            if !name.is_empty() && port.iter().all(u8::is_ascii_digit) =>
        {
            true
        }
        Some(_) => Authority::try_from(host).is_ok(),
    }
}

/// There must be one, and it must be one: RFC 9112, §3.2. An empty one is allowed.
fn host<B>(request: &Request<B>) -> Option<Failure> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (details, reason, flag) = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => (
            CODEC_ERROR,
            "the request names two hosts",
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        ),
        // RFC 9113, section 8.3.1: who asks is not named there.
        _ if is_http2(request) && names_user(request) => (
            "http2.violation.of.messaging.rule",
            "the authority of the request names a user",
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        ),
        (None, None) if request.uri().authority().is_none() => (
            "missing_host_header",
            "the request names no host",
            ResponseFlags::default(),
        ),
        (Some(host), None) if !is_host(host.as_bytes()) => (
            "invalid_authority",
            "the request names a host that cannot be one",
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        ),
        _ => return None,
    };
    Some(refusal(StatusCode::BAD_REQUEST, details, reason, flag))
}

/// Only CONNECT asks for no path. Envoy: `404` without a flag, whatever the routes are.
fn path<B>(request: &Request<B>) -> Option<Failure> {
    let path = request.uri().path_and_query().map(PathAndQuery::as_str);
    let is_path = path.is_some_and(|path| path.starts_with('/'));
    (!is_path && request.method() != Method::CONNECT).then(|| {
        let mut reply =
            LocalReply::new(StatusCode::NOT_FOUND, NO_PATH).because("the target has no path");
        reply.event = Some(HttpEvent::NonRelativePath);
        Failure::Answered(Box::new(reply))
    })
}

fn is_http1<B>(request: &Request<B>) -> bool {
    matches!(request.version(), Version::HTTP_10 | Version::HTTP_11)
}

fn is_http2<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2
}

fn names_user<B>(request: &Request<B>) -> bool {
    let authority = request.uri().authority();
    authority.is_some_and(|authority| authority.as_str().contains('@'))
}

fn refusal(
    status: StatusCode,
    details: &str,
    reason: &'static str,
    flag: ResponseFlags,
) -> Failure {
    let mut reply = LocalReply::new(status, details).because(reason);
    reply.flag = flag;
    // Where the next request would begin is not known for sure.
    reply
        .headers
        .push((CONNECTION, HeaderValue::from_static("close")));
    Failure::Answered(Box::new(reply))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn status(request: http::request::Builder) -> Option<u16> {
        let request = request.body(()).expect("a request");
        objection(&request, &Http1Options::default()).map(|failure| failure.status().as_u16())
    }

    fn request(target: &str) -> http::request::Builder {
        Request::builder().uri(target)
    }

    #[test]
    fn what_is_a_host_by_its_looks_is_one_for_the_library_too() {
        for (host, is_one) in [
            ("shop", true),
            ("shop.default.svc:8080", true),
            ("10.0.0.1:80", true),
            ("a_b", true),
            ("[::1]:80", true),
            ("shop:", true),
            ("a b", false),
            ("a/b", false),
            ("a:1:2", false),
            ("[::1", false),
        ] {
            assert_eq!(is_host(host.as_bytes()), is_one, "{host}");
            assert_eq!(Authority::try_from(host).is_ok(), is_one, "{host}");
        }
    }

    #[test]
    fn headers_are_counted_as_the_version_has_them_that_was_spoken() {
        let mut request = request("/").body(()).expect("a request");
        for index in 0..100 {
            let name = HeaderName::try_from(format!("x-{index}")).expect("a name");
            request.headers_mut().insert(name, HeaderValue::from(1));
        }
        let is_refused = |spoken: Spoken, max| too_many_headers(&request, spoken, max).is_some();

        // Those of HTTP/1.1 were counted as they were read.
        assert!(!is_refused(HttpVersion::Http1.into(), 10));
        assert!(is_refused(HttpVersion::Http2.into(), 103));
        assert!(!is_refused(HttpVersion::Http2.into(), 104));
        assert!(is_refused(Spoken::SHARED_HTTP1, 99));
        assert!(!is_refused(Spoken::SHARED_HTTP1, 100));
    }

    #[test]
    fn an_ordinary_request_is_good() {
        assert_eq!(status(request("/").header("host", "a:80")), None);
        assert_eq!(status(request("http://a/")), None);
        assert_eq!(status(request("/").header("host", "")), None);
    }

    #[test]
    fn a_request_without_a_host_or_with_none_that_could_be_is_bad() {
        assert_eq!(status(request("/")), Some(400));
        assert_eq!(status(request("/").header("host", "a b")), Some(400));
        let two = request("/").header("host", "a").header("host", "b");
        assert_eq!(status(two), Some(400));
    }

    #[test]
    fn chunked_is_the_only_coding() {
        let coded = |value: &str| {
            request("/")
                .header("host", "a")
                .header("transfer-encoding", value)
        };

        assert_eq!(status(coded("Chunked")), None);
        assert_eq!(status(coded("gzip, chunked")), Some(501));
        assert_eq!(
            status(coded("chunked").header("transfer-encoding", "chunked")),
            Some(501)
        );
    }

    #[test]
    fn a_response_has_one_framing_and_switches_only_where_that_was_asked_for() {
        let misframed = |response: http::response::Builder, may_switch| {
            misframed(&response.body(()).expect("a response"), may_switch).is_some()
        };
        let coded = |value| Response::builder().header("transfer-encoding", value);

        assert!(!misframed(
            Response::builder().header("content-length", "1"),
            false
        ));
        assert!(!misframed(coded("chunked"), false));
        assert!(misframed(coded("gzip"), false));
        assert!(misframed(
            coded("chunked").header("content-length", "1"),
            false
        ));
        assert!(misframed(Response::builder().status(101), false));
        assert!(!misframed(Response::builder().status(101), true));
    }

    #[test]
    fn an_authority_is_a_target_of_connect_alone() {
        let to = |method: &str| request("a.test:443").method(method).header("host", "a");

        let bad_port = request("http://a.test:x/").header("host", "a");
        assert_eq!(status(bad_port), Some(400));
        assert_eq!(
            status(request("http://[::1]:80/").header("host", "a")),
            None
        );
        let path = request("/").method("CONNECT").header("host", "a");

        assert_eq!(status(path), Some(400));
        assert_eq!(status(to("CONNECT")), None);
        assert_eq!(status(to("GET")), Some(400));
    }
}
