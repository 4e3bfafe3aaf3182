//! Requests that are refused before anything is made of them: two readers could see them differently, or they name
//! no host.
//!
//! hyper has parsed them, and is more lenient than a proxy may be.

use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, StatusCode, Version};

use super::failure::{Failure, LocalReply};
use crate::telemetry::report::ResponseFlags;

/// What is wrong with a request, if anything.
pub(super) fn objection<B>(request: &Request<B>) -> Option<Failure> {
    coding(request)
        .or_else(|| target(request))
        .or_else(|| host(request))
}

/// Only `chunked`, and once: any other coding would have to be undone or told to the upstream (RFC 9112, §6.1).
fn coding<B>(request: &Request<B>) -> Option<Failure> {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let first = codings.next()?;
    let is_chunked = first.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    (!is_chunked).then(|| {
        let details = "transfer-encoding is not chunked alone";
        refusal(
            StatusCode::NOT_IMPLEMENTED,
            details,
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        )
    })
}

/// The authority form of a target is for CONNECT alone (RFC 9112, §3.2.3).
fn target<B>(request: &Request<B>) -> Option<Failure> {
    let uri = request.uri();
    let is_authority = uri.scheme().is_none() && uri.authority().is_some();
    let is_wrong = is_authority && request.method() != Method::CONNECT && is_http1(request);
    is_wrong.then(|| {
        let details = "the target is no path";
        refusal(
            StatusCode::BAD_REQUEST,
            details,
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        )
    })
}

/// There must be one, and it must be one: RFC 9112, §3.2. An empty one is allowed.
fn host<B>(request: &Request<B>) -> Option<Failure> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (details, flag) = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => (
            "the request names two hosts",
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        ),
        (None, None) if request.uri().authority().is_none() => {
            ("the request names no host", ResponseFlags::default())
        }
        (Some(host), None) if !host.is_empty() && Authority::try_from(host.as_bytes()).is_err() => {
            (
                "the request names a host that cannot be one",
                ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            )
        }
        _ => return None,
    };
    Some(refusal(StatusCode::BAD_REQUEST, details, flag))
}

fn is_http1<B>(request: &Request<B>) -> bool {
    matches!(request.version(), Version::HTTP_10 | Version::HTTP_11)
}

fn refusal(status: StatusCode, details: &str, flag: ResponseFlags) -> Failure {
    let mut reply = LocalReply::new(status, details);
    reply.flag = flag;
    // Where the next request would begin is not known for sure.
    reply
        .headers
        .push((CONNECTION, HeaderValue::from_static("close")));
    Failure::Answered(Box::new(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: http::request::Builder) -> Option<u16> {
        let request = request.body(()).expect("a request");
        objection(&request).map(|failure| failure.status().as_u16())
    }

    fn request(target: &str) -> http::request::Builder {
        Request::builder().uri(target)
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
    fn an_authority_is_a_target_of_connect_alone() {
        let to = |method: &str| request("a.test:443").method(method).header("host", "a");

        assert_eq!(status(to("CONNECT")), None);
        assert_eq!(status(to("GET")), Some(400));
    }
}
