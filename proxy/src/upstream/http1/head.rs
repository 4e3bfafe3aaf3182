//! The head of a response: what it says, and how long the body is that follows (RFC 9112 §6.3).
//!
//! As strict as RFC 9112 lets a client be: `httparse` reads lines as it does by default, without leniency of any kind.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::error::Malformed;
use crate::config::http::DEFAULT_MAX_HEADERS;

/// What is taken of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    pub(super) max_headers: usize,
    pub(super) max_bytes: usize,
}

/// A head that has been read.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) response: Response<()>,
    /// Whether the peer will take another request after this one.
    pub(super) keeps_alive: bool,
}

/// How long the body of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// So many bytes.
    Known(u64),
    /// It says when it ends.
    Chunked,
    /// It ends with the connection.
    UntilClose,
    /// What follows is no HTTP any more.
    Switched,
}

/// No message is longer: what cannot be counted cannot be waited for.
const MAX_LENGTH: u64 = u64::MAX - 2;

/// Takes a head off what has come; `None` where it is not whole yet. Its headers are put into a map that is empty.
pub(super) fn take(
    unread: &mut Bytes,
    headers: &mut HeaderMap,
    limits: HeadLimits,
) -> Result<Option<ResponseHead>, Malformed> {
    let bytes = std::mem::take(unread);
    // Those that most clusters allow have their place on the stack.
    let mut few = [const { MaybeUninit::uninit() }; DEFAULT_MAX_HEADERS];
    let mut many = vec![];
    let slots = match few.get_mut(..limits.max_headers) {
        Some(slots) => slots,
        None => {
            many.resize_with(limits.max_headers, MaybeUninit::uninit);
            &mut many[..]
        }
    };
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, &bytes, slots)
        .map_err(|error| match error {
            httparse::Error::TooManyHeaders => Malformed::ManyHeaders {
                max_headers: limits.max_headers,
            },
            error => Malformed::Head(error),
        })?;
    let httparse::Status::Complete(length) = status else {
        *unread = bytes;
        return match unread.len() >= limits.max_bytes {
            true => Err(too_large(limits)),
            false => Ok(None),
        };
    };
    if length > limits.max_bytes {
        return Err(too_large(limits));
    }
    let head = built(&parsed, std::mem::take(headers), &bytes)?;
    *unread = bytes;
    unread.advance(length);
    Ok(Some(head))
}

/// Whether a head may end in what has come behind so many bytes: a slow one is not read anew with each of its bytes.
pub(super) fn may_end(unread: &[u8], before: usize) -> bool {
    let new = unread.get(before.saturating_sub(3)..).unwrap_or_default();
    let mut lines = new.split_inclusive(|byte| *byte == b'\n').skip(1);
    before == 0 || lines.any(|line| line == b"\n" || line == b"\r\n")
}

pub(super) fn too_large(limits: HeadLimits) -> Malformed {
    Malformed::LargeHead {
        max_bytes: limits.max_bytes,
    }
}

/// A response without its body. Values of headers are parts of what has come: nothing is copied.
fn built(
    parsed: &httparse::Response<'_, '_>,
    headers: HeaderMap,
    bytes: &Bytes,
) -> Result<ResponseHead, Malformed> {
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Malformed::Status)?;
    let version = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    let reason = parsed.reason.filter(|reason| {
        // The server's side writes the usual one by itself.
        Some(*reason) != status.canonical_reason()
    });
    if let Some(Ok(reason)) = reason.map(|reason| ReasonPhrase::try_from(reason.as_bytes())) {
        response.extensions_mut().insert(reason);
    }
    let mut persistence = Persistence::of(version);
    let headers = response.headers_mut();
    headers.reserve(parsed.headers.len());
    for header in parsed.headers.iter() {
        let unreadable = |_| Malformed::Head(httparse::Error::HeaderName);
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(unreadable)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(header.value))
            .map_err(|_| Malformed::Head(httparse::Error::HeaderValue))?;
        if name == CONNECTION {
            persistence.hear(&value);
        }
        headers.append(name, value);
    }
    Ok(ResponseHead {
        response,
        keeps_alive: persistence.is_kept,
    })
}

/// Whether a connection outlives a response (RFC 9112 §9.3).
struct Persistence {
    is_kept: bool,
    is_closed: bool,
}

impl Persistence {
    fn of(version: Version) -> Self {
        Persistence {
            is_kept: version == Version::HTTP_11,
            is_closed: false,
        }
    }

    /// One line of several: once any of them says that it closes, no other says that it does not.
    fn hear(&mut self, connection: &HeaderValue) {
        self.is_closed |= names(connection, "close");
        self.is_kept = !self.is_closed && (self.is_kept || names(connection, "keep-alive"));
    }
}

/// Whether a list names an option.
pub(super) fn names(list: &HeaderValue, option: &str) -> bool {
    let mut options = list.to_str().unwrap_or_default().split(',');
    options.any(|each| each.trim().eq_ignore_ascii_case(option))
}

/// How long the body is of a response to a request of this method.
pub(super) fn body_length(
    response: &Response<()>,
    method: &Method,
) -> Result<BodyLength, Malformed> {
    let status = response.status();
    let headers = response.headers();
    if status == StatusCode::SWITCHING_PROTOCOLS
        || (*method == Method::CONNECT && status.is_success())
    {
        return Ok(BodyLength::Switched);
    }
    let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if has_none || *method == Method::HEAD {
        return Ok(BodyLength::Known(0));
    }
    if let Some(last) = headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        return match response.version() {
            Version::HTTP_10 => Err(Malformed::Coding),
            _ if ends_chunked(last) => Ok(BodyLength::Chunked),
            _ => Ok(BodyLength::UntilClose),
        };
    }
    match content_length(headers) {
        Ok(None) => Ok(BodyLength::UntilClose),
        Ok(Some(length)) if length <= MAX_LENGTH => Ok(BodyLength::Known(length)),
        _ => Err(Malformed::Length),
    }
}

/// Whether the last coding of a list is `chunked`.
pub(super) fn ends_chunked(list: &HeaderValue) -> bool {
    let list = list.to_str().unwrap_or_default();
    let last = list.rsplit(',').next().unwrap_or_default();
    last.trim().eq_ignore_ascii_case("chunked")
}

/// A length that was sent several times is not no good as long as it is the same (RFC 9110 §8.6); not a number, or not one.
pub(super) struct NoLength;

/// The length that headers tell; `None` where they tell none.
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, NoLength> {
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        let line = line.to_str().map_err(|_| NoLength)?;
        for text in line.split(',') {
            let each = digits(text.trim()).ok_or(NoLength)?;
            if length.is_some_and(|length| length != each) {
                return Err(NoLength);
            }
            length = Some(each);
        }
    }
    Ok(length)
}

/// A number in digits alone: `parse` would take a sign.
fn digits(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        max_headers: 4,
        max_bytes: 256,
    };

    fn read(text: &str) -> Result<Option<ResponseHead>, Malformed> {
        let mut unread = Bytes::copy_from_slice(text.as_bytes());
        take(&mut unread, &mut HeaderMap::new(), LIMITS)
    }

    fn length(text: &str, method: Method) -> Result<BodyLength, Malformed> {
        let head = read(text)?.expect("a whole head");
        body_length(&head.response, &method)
    }

    fn kept(text: &str) -> bool {
        read(text).expect("a head").expect("all of it").keeps_alive
    }

    #[test]
    fn a_head_is_taken_off_once_it_is_whole() {
        let text = b"HTTP/1.1 200 Fine\r\nServer: x\r\nA: \xe9\r\n\r\nbody";
        for end in 0..text.len() - 4 {
            let mut unread = Bytes::copy_from_slice(&text[..end]);
            let taken = take(&mut unread, &mut HeaderMap::new(), LIMITS);
            assert!(taken.expect("so far it is one").is_none(), "{end}");
            assert_eq!(unread.len(), end);
            assert!(!may_end(&text[..end], 1), "{end}");
        }
        let mut unread = Bytes::from_static(text);
        assert!(may_end(text, text.len() - 5));
        let head = take(&mut unread, &mut HeaderMap::new(), LIMITS);
        let head = head.expect("a head").expect("all of it").response;

        assert_eq!(unread, "body");
        assert_eq!(head.headers()["server"], "x");
        assert_eq!(head.headers()["a"].as_bytes(), b"\xe9");
        let reason = head.extensions().get::<ReasonPhrase>().expect("its own");
        assert_eq!(reason.as_bytes(), b"Fine");
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "nonsense\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\rc: d\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_head_has_no_more_headers_or_bytes_than_are_allowed() {
        let four = "HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n";
        assert!(read(&format!("{four}\r\n")).is_ok());
        let many = Malformed::ManyHeaders { max_headers: 4 };
        assert_eq!(read(&format!("{four}e: 5\r\n\r\n")).unwrap_err(), many);

        let large = Malformed::LargeHead { max_bytes: 256 };
        let value = "x".repeat(256);
        let whole = format!("HTTP/1.1 200 OK\r\na: {value}\r\n\r\n");
        assert_eq!(read(&whole).unwrap_err(), large);
        assert_eq!(read(&whole[..270]).unwrap_err(), large);
    }

    #[test]
    fn bodies_are_as_long_as_the_rfc_says() {
        let ok = |headers: &str| format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
        let get = |headers: &str| length(&ok(headers), Method::GET);
        let known = |bytes| Ok(BodyLength::Known(bytes));

        assert_eq!(get("content-length: 5\r\n"), known(5));
        assert_eq!(get("content-length: 5, 5\r\n"), known(5));
        assert_eq!(get(""), Ok(BodyLength::UntilClose));
        assert_eq!(
            get("transfer-encoding: chunked\r\n"),
            Ok(BodyLength::Chunked)
        );
        assert_eq!(
            get("transfer-encoding: gzip\r\n"),
            Ok(BodyLength::UntilClose)
        );
        assert_eq!(length(&ok("content-length: 5\r\n"), Method::HEAD), known(0));
        assert_eq!(
            length(&ok("content-length: 5\r\n"), Method::CONNECT),
            Ok(BodyLength::Switched)
        );
        for status in ["204 No Content", "304 Not Modified"] {
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\n");
            assert_eq!(length(&text, Method::GET), known(0));
        }
    }

    #[test]
    fn lengths_that_two_readers_could_see_differently_are_refused() {
        for headers in [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 6\r\n",
            "content-length: +5\r\n",
            "content-length: -5\r\n",
            "content-length: 0x5\r\n",
            "content-length: \r\n",
            "content-length: 5,\r\n",
            "content-length: 18446744073709551615\r\n",
            "content-length: 99999999999999999999\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
            assert_eq!(length(&text, Method::GET), Err(Malformed::Length), "{text}");
        }
        let old = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(length(old, Method::GET), Err(Malformed::Coding));
    }

    #[test]
    fn connections_are_kept_as_both_versions_say() {
        assert!(kept("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!kept("HTTP/1.1 200 OK\r\nconnection: x, Close\r\n\r\n"));
        assert!(!kept(
            "HTTP/1.1 200 OK\r\nconnection: close\r\nconnection: keep-alive\r\n\r\n"
        ));
        assert!(!kept("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(kept("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n"));
    }
}
