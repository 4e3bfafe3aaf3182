//! The head of a request: what it asks for, how long the body is that follows (RFC 9112 §6.3), and what it says of its
//! connection.

use bytes::{Buf, Bytes};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Uri, Version};

use crate::config::http1::HeaderNames;
use crate::http1::head::{
    HeadLimits, MAX_LENGTH, Persistence, digits, ends_chunked, header, names, with_slots,
};
use crate::http1::malformed::Malformed;
use crate::http1::maps;
use crate::http1::names::Spelling;
use crate::upstream::body::client::ClientBody;

/// A head that has been read.
#[derive(Debug)]
pub(super) struct RequestHead {
    /// With an empty body: it is read by whoever wants it. Boxed, as it is handed on from one to the other.
    pub(super) request: Box<Request<ClientBody>>,
    pub(super) length: BodyLength,
    /// Whether the client will send another request after this one.
    pub(super) keeps_alive: bool,
    /// Whether it waits to be asked for the body.
    pub(super) expects_continue: bool,
    /// Whether it may become another protocol.
    pub(super) asks_for_upgrade: bool,
    /// Whether it wants trailers.
    pub(super) takes_trailers: bool,
}

/// How long the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// So many bytes.
    Known(u64),
    /// It says when it ends.
    Chunked,
}

impl RequestHead {
    /// Whether a body follows.
    pub(super) fn has_body(&self) -> bool {
        self.length != BodyLength::Known(0)
    }
}

/// No target is longer: more than [`Uri`] takes.
const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;
/// What a client of HTTP/2 says first (RFC 9113 §3.4), as far as it looks like a request.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Takes a head off what has come; `None` where it is not whole yet.
pub(super) fn take(
    unread: &mut Bytes,
    limits: HeadLimits,
    names: HeaderNames,
) -> Result<Option<RequestHead>, Malformed> {
    let bytes = &*unread;
    let taken = with_slots(limits.max_headers, |slots| {
        let mut parsed = httparse::Request::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_request_with_uninit_headers(&mut parsed, bytes, slots)
            .map_err(|error| match bytes.starts_with(HTTP2_PREFACE) {
                true => Malformed::Http2,
                false => limits.explain(error),
            })?;
        let httparse::Status::Complete(length) = status else {
            return Ok(None);
        };
        if length > limits.max_bytes {
            return Err(limits.too_large());
        }
        let mut head = built(&parsed, bytes)?;
        let extensions = head.request.extensions_mut();
        Spelling::remember(extensions, (parsed.headers, bytes), names);
        Ok(Some((head, length)))
    })?;
    match taken {
        Some((head, length)) => {
            unread.advance(length);
            Ok(Some(head))
        }
        None if unread.len() >= limits.max_bytes => Err(limits.too_large()),
        None => Ok(None),
    }
}

fn built(parsed: &httparse::Request<'_, '_>, bytes: &Bytes) -> Result<RequestHead, Malformed> {
    let method = parsed.method.unwrap_or_default().as_bytes();
    let target = parsed.path.unwrap_or_default().as_bytes();
    if target.len() > MAX_TARGET_BYTES {
        return Err(Malformed::LongTarget);
    }
    // In its place at once: what is made before its box is copied there.
    let mut request = Box::write(Box::new_uninit(), Request::new(ClientBody::Empty));
    *request.method_mut() = Method::from_bytes(method).map_err(|_| Malformed::Method)?;
    *request.uri_mut() =
        Uri::from_maybe_shared(bytes.slice_ref(target)).map_err(|_| Malformed::Target)?;
    *request.version_mut() = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let mut said = Said::of(&request);
    let headers = request.headers_mut();
    *headers = maps::take();
    headers.reserve(parsed.headers.len());
    for each in parsed.headers.iter() {
        let (name, value) = header(each, bytes)?;
        let is_kept = match name {
            TRANSFER_ENCODING => {
                said.coding(&value)?;
                headers.remove(CONTENT_LENGTH);
                true
            }
            CONTENT_LENGTH => said.length(&value)?,
            CONNECTION => {
                said.persistence.hear(&value);
                true
            }
            EXPECT => {
                said.expects_continue = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                true
            }
            UPGRADE => {
                said.asks_for_upgrade |= !said.is_old;
                true
            }
            TE => {
                said.takes_trailers |= names(&value, "trailers");
                true
            }
            _ => true,
        };
        if is_kept {
            headers.append(name, value);
        }
    }
    said.head(request)
}

/// What the headers say so far.
struct Said {
    is_old: bool,
    persistence: Persistence,
    /// Whether the last coding is `chunked`, where there is any.
    is_chunked: Option<bool>,
    has_length: bool,
    length: Option<u64>,
    expects_continue: bool,
    asks_for_upgrade: bool,
    takes_trailers: bool,
}

impl Said {
    fn of(request: &Request<ClientBody>) -> Self {
        Said {
            is_old: request.version() == Version::HTTP_10,
            persistence: Persistence::of(request.version()),
            is_chunked: None,
            has_length: false,
            length: None,
            expects_continue: false,
            asks_for_upgrade: request.method() == Method::CONNECT,
            takes_trailers: false,
        }
    }

    /// A coding goes before a length, which is no header of the request any more (RFC 9112 §6.1).
    fn coding(&mut self, value: &HeaderValue) -> Result<(), Malformed> {
        if self.is_old {
            return Err(Malformed::Coding);
        }
        self.is_chunked = Some(ends_chunked(value));
        Ok(())
    }

    /// Whether it is kept: one line is enough.
    fn length(&mut self, value: &HeaderValue) -> Result<bool, Malformed> {
        self.has_length = true;
        if self.is_chunked.is_some() {
            return Ok(false);
        }
        let length = value.to_str().ok().and_then(digits);
        let length = length.filter(|length| *length <= MAX_LENGTH);
        let length = length.ok_or(Malformed::Length)?;
        match self.length.replace(length) {
            None => Ok(true),
            Some(before) if before == length => Ok(false),
            Some(_) => Err(Malformed::Length),
        }
    }

    fn head(self, request: Box<Request<ClientBody>>) -> Result<RequestHead, Malformed> {
        let length = match self.is_chunked {
            Some(true) => BodyLength::Chunked,
            // RFC 9112 §6.3: it ends nowhere.
            Some(false) => return Err(Malformed::Coding),
            None => BodyLength::Known(self.length.unwrap_or_default()),
        };
        // RFC 9112 §6.1: who sends both may mean the other.
        let is_unclear = self.is_chunked.is_some() && self.has_length;
        Ok(RequestHead {
            request,
            length,
            keeps_alive: self.persistence.is_kept && !is_unclear,
            expects_continue: self.expects_continue && !self.is_old,
            asks_for_upgrade: self.asks_for_upgrade,
            takes_trailers: self.takes_trailers,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::http1::names::Names;

    const LIMITS: HeadLimits = HeadLimits {
        max_headers: 4,
        max_bytes: 256,
    };

    fn read(text: &str) -> Result<Option<RequestHead>, Malformed> {
        take(
            &mut Bytes::copy_from_slice(text.as_bytes()),
            LIMITS,
            HeaderNames::LowerCase,
        )
    }

    fn head(headers: &str) -> Result<RequestHead, Malformed> {
        let head = read(&format!("POST /a HTTP/1.1\r\n{headers}\r\n"))?;
        Ok(head.expect("all of it"))
    }

    #[test]
    fn a_head_is_taken_off_once_it_is_whole() {
        let text = b"\r\nGET /a?b HTTP/1.1\r\nHost: x\r\nA: \xe9\r\n\r\nnext";
        for end in 0..text.len() - 4 {
            let mut unread = Bytes::copy_from_slice(&text[..end]);
            let taken =
                take(&mut unread, LIMITS, HeaderNames::LowerCase).expect("so far it is one");
            assert!(taken.is_none(), "{end}");
            assert_eq!(unread.len(), end);
        }
        let mut unread = Bytes::from_static(text);

        let head = take(&mut unread, LIMITS, HeaderNames::LowerCase);

        let head = head.expect("a head").expect("all of it");
        assert_eq!(unread, "next");
        assert_eq!(head.request.method(), Method::GET);
        assert_eq!(head.request.uri(), "/a?b");
        assert_eq!(head.request.headers()["host"], "x");
        assert_eq!(head.request.headers()["a"].as_bytes(), b"\xe9");
        assert!(!head.has_body() && head.keeps_alive);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "nonsense\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\r\na : b\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\0\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\rc: d\r\n\r\n",
            "GET / HTTP/1.1\r\n: b\r\n\r\n",
            "GET /\x7f HTTP/1.1\r\n\r\n",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        let preface = std::str::from_utf8(HTTP2_PREFACE).expect("text");
        assert_eq!(read(preface).unwrap_err(), Malformed::Http2);
    }

    #[test]
    fn a_head_has_no_more_headers_or_bytes_than_are_allowed() {
        let four = "a: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n";
        assert!(head(four).is_ok());
        let many = Malformed::ManyHeaders { max_headers: 4 };
        assert_eq!(head(&format!("{four}e: 5\r\n")).unwrap_err(), many);

        let large = Malformed::LargeHead { max_bytes: 256 };
        let whole = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(256));
        assert_eq!(read(&whole).unwrap_err(), large);
        assert_eq!(read(&whole[..270]).unwrap_err(), large);
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_TARGET_BYTES));
        let limits = HeadLimits {
            max_bytes: 1 << 20,
            ..LIMITS
        };
        let taken = take(&mut Bytes::from(long), limits, HeaderNames::LowerCase);
        assert_eq!(taken.unwrap_err(), Malformed::LongTarget);
    }

    #[test]
    fn names_are_remembered_where_they_are_to_be() {
        for (wanted, written) in [
            (HeaderNames::LowerCase, "x-one: "),
            (HeaderNames::Preserved, "X-oNE: "),
        ] {
            let mut unread = Bytes::from_static(b"GET / HTTP/1.1\r\nX-oNE: 1\r\n\r\n");

            let head = take(&mut unread, LIMITS, wanted);

            let head = head.expect("a head").expect("all of it").request;
            let mut bytes = bytes::BytesMut::new();
            let names = Names::of(head.extensions(), HeaderNames::LowerCase);
            names.put(&mut bytes, &HeaderName::from_static("x-one"));
            assert_eq!(bytes, written);
        }
    }

    #[test]
    fn bodies_are_as_long_as_the_rfc_says() {
        let length = |headers: &str| head(headers).expect("a head").length;

        assert_eq!(length(""), BodyLength::Known(0));
        assert_eq!(length("content-length: 5\r\n"), BodyLength::Known(5));
        let twice = "content-length: 5\r\ncontent-length: 5\r\n";
        assert_eq!(length(twice), BodyLength::Known(5));
        assert_eq!(
            length("transfer-encoding: gzip, Chunked\r\n"),
            BodyLength::Chunked
        );
    }

    #[test]
    fn a_length_beside_a_coding_is_none_and_ends_the_connection() {
        for headers in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        ] {
            let head = head(headers).expect("a head");

            assert_eq!(head.length, BodyLength::Chunked);
            assert!(!head.request.headers().contains_key(CONTENT_LENGTH));
            assert!(!head.keeps_alive);
        }
    }

    #[test]
    fn lengths_that_two_readers_could_see_differently_are_refused() {
        for headers in [
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length: -5\r\n",
            "content-length: 0x5\r\n",
            "content-length: \r\n",
            "content-length: 18446744073709551615\r\n",
            "content-length: 99999999999999999999\r\n",
        ] {
            assert_eq!(head(headers).unwrap_err(), Malformed::Length, "{headers}");
        }
        for text in [
            "POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(read(text).unwrap_err(), Malformed::Coding, "{text}");
        }
    }

    #[test]
    fn connections_are_kept_as_both_versions_say() {
        let kept = |headers: &str| head(headers).expect("a head").keeps_alive;
        let old = |headers: &str| {
            let text = format!("GET / HTTP/1.0\r\n{headers}\r\n");
            read(&text).expect("a head").expect("all").keeps_alive
        };

        assert!(kept(""));
        assert!(!kept("connection: x, Close\r\n"));
        assert!(!kept("connection: close\r\nconnection: keep-alive\r\n"));
        assert!(!old(""));
        assert!(old("connection: keep-alive\r\n"));
    }

    #[test]
    fn what_a_client_waits_for_is_heard() {
        let expecting = head("Expect: 100-Continue\r\ncontent-length: 1\r\n").expect("a head");
        assert!(expecting.expects_continue);
        let upgrading = head("upgrade: x\r\nte: a, Trailers\r\n").expect("a head");
        assert!(upgrading.asks_for_upgrade && upgrading.takes_trailers);
        let plain = head("").expect("a head");
        assert!(!plain.expects_continue && !plain.asks_for_upgrade && !plain.takes_trailers);
    }
}
