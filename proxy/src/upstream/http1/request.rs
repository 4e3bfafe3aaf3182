//! The head of a request as it is written, and how its body is framed (RFC 9112 §6).

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body::Body;

use crate::config::http1::HeaderNames;
use crate::http1::head::{content_length, ends_chunked};
use crate::http1::names::Names;
use crate::http1::sending::Framing;
use crate::http1::text::{names_in, put_headers, stored};
use crate::present;

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// Decides how a body is framed, and says so in the headers. What they say already holds.
pub(super) fn frame<T, B: Body>(request: &mut Request<T>, body: &B) -> Framing {
    let may_switch = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_tunnel = *request.method() == Method::CONNECT;
    let headers = request.headers_mut();
    if body.is_end_stream() {
        present::remove(headers, &TRANSFER_ENCODING);
        return Framing::None;
    }
    if let Some(last) = headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        if !ends_chunked(last) {
            headers.append(TRANSFER_ENCODING, CHUNKED);
        }
        return chunked(headers);
    }
    if let Ok(Some(length)) = content_length(headers) {
        return length_of(length);
    }
    if let Some(length) = body.size_hint().exact() {
        headers.insert(CONTENT_LENGTH, length.into());
        return length_of(length);
    }
    // It is for the protocol that is asked for.
    let is_of_next = may_switch && headers.contains_key(UPGRADE);
    if is_tunnel || is_of_next {
        return Framing::None;
    }
    headers.insert(TRANSFER_ENCODING, CHUNKED);
    chunked(headers)
}

fn length_of(bytes: u64) -> Framing {
    match bytes {
        0 => Framing::None,
        bytes => Framing::Length(bytes),
    }
}

fn chunked(headers: &mut HeaderMap) -> Framing {
    headers.remove(CONTENT_LENGTH);
    Framing::Chunked(names_in(headers.get_all(TRAILER).iter()).collect())
}

/// The head of a request; names of headers that nobody remembers are written like this.
pub(super) fn head<T>(request: &Request<T>, names: HeaderNames) -> Bytes {
    let names = Names::of(request.extensions(), names);
    stored(|bytes| {
        bytes.extend_from_slice(request.method().as_str().as_bytes());
        bytes.extend_from_slice(b" ");
        put_target(bytes, request.uri());
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        put_headers(bytes, request.headers(), names);
        bytes.extend_from_slice(b"\r\n");
    })
}

fn put_target(bytes: &mut BytesMut, target: &Uri) {
    let is_origin = target.scheme().is_none() && target.authority().is_none();
    match target.path_and_query() {
        Some(path) if is_origin && path.as_str().starts_with(['/', '*']) => {
            bytes.extend_from_slice(path.as_str().as_bytes());
        }
        _ => write!(bytes, "{target}").expect("a buffer of bytes grows as is needed"),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty, Full, StreamBody};

    use super::*;
    use crate::http1::text::trailers;

    fn request(method: Method, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_static("/a?b=c");
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(*name, value);
        }
        request
    }

    fn text(head: &Bytes) -> &str {
        std::str::from_utf8(head).expect("text")
    }

    /// Of a length that nobody knows.
    fn unknown() -> impl Body<Data = Bytes> {
        let frames = futures_util::stream::pending();
        StreamBody::new(frames).map_err(|error: std::io::Error| error)
    }

    fn framed(method: Method, headers: &[(&'static str, &'static str)]) -> (Framing, String) {
        let mut request = request(method, headers);
        let framing = frame(&mut request, &unknown());
        (
            framing,
            text(&head(&request, HeaderNames::LowerCase)).to_owned(),
        )
    }

    #[test]
    fn a_request_without_a_body_is_written_as_it_is() {
        let mut request = request(Method::GET, &[("host", "a"), ("x-one-two", ""), ("x", "2")]);

        assert_eq!(frame(&mut request, &Empty::<Bytes>::new()), Framing::None);

        let lines = "GET /a?b=c HTTP/1.1\r\nhost: a\r\nx-one-two: \r\nx: 2\r\n\r\n";
        assert_eq!(head(&request, HeaderNames::LowerCase), lines);
        let proper = "GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-One-Two: \r\nX: 2\r\n\r\n";
        assert_eq!(head(&request, HeaderNames::ProperCase), proper);
    }

    #[test]
    fn targets_are_written_in_each_form() {
        for target in ["/", "/a?b", "*", "http://a:80/b?c", "a:443"] {
            let mut request = request(Method::CONNECT, &[]);
            *request.uri_mut() = target.parse().expect("a target");

            let line = format!("CONNECT {target} HTTP/1.1\r\n\r\n");
            assert_eq!(head(&request, HeaderNames::LowerCase), line.as_bytes());
        }
    }

    #[test]
    fn a_length_is_told_where_it_is_known() {
        let mut request = request(Method::POST, &[]);

        let framing = frame(&mut request, &Full::new(Bytes::from_static(b"abc")));

        assert_eq!(framing, Framing::Length(3));
        assert_eq!(request.headers()[CONTENT_LENGTH], "3");
    }

    #[test]
    fn a_length_that_headers_tell_holds() {
        let (framing, head) = framed(Method::POST, &[("content-length", "5")]);

        assert_eq!(framing, Framing::Length(5));
        assert!(!head.contains("chunked"), "{head}");
    }

    #[test]
    fn what_has_no_length_comes_in_chunks_whatever_the_method_is() {
        for method in [Method::GET, Method::POST, Method::HEAD] {
            let (framing, head) = framed(method, &[]);

            assert_eq!(framing, Framing::Chunked(vec![]));
            assert!(head.ends_with("transfer-encoding: chunked\r\n\r\n"));
        }
        let upgrade = [("upgrade", "websocket")];
        assert_eq!(framed(Method::GET, &upgrade).0, Framing::None);
        assert_eq!(framed(Method::CONNECT, &[]).0, Framing::None);
    }

    #[test]
    fn chunks_and_a_length_are_never_sent_together() {
        let both = [("content-length", "5"), ("transfer-encoding", "chunked")];

        let (framing, head) = framed(Method::POST, &both);

        assert_eq!(framing, Framing::Chunked(vec![]));
        assert!(!head.contains("content-length"), "{head}");
    }

    #[test]
    fn trailers_are_sent_that_were_announced_and_may_be() {
        let (framing, _) = framed(Method::POST, &[("trailer", "A, b"), ("trailer", "host")]);
        let Framing::Chunked(announced) = framing else {
            panic!("not in chunks: {framing:?}");
        };
        let sent = request(
            Method::POST,
            &[("a", "1"), ("c", "2"), ("host", "3"), ("b", "4")],
        );

        let end = trailers(sent.headers(), &announced);

        assert_eq!(end, "0\r\na: 1\r\nb: 4\r\n\r\n");
    }
}
