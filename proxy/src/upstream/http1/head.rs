//! The head of a response: what it says, and how long the body is that follows (RFC 9112 §6.3).

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use crate::config::http1::HeaderNames;
use crate::http1::head::{
    HeadLimits, MAX_LENGTH, Persistence, content_length, ends_chunked, header, with_slots,
};
use crate::http1::malformed::Malformed;
use crate::http1::names::Spelling;
use crate::present;

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

/// Takes a head off what has come; `None` where it is not whole yet. Its headers are put into a map that is empty.
pub(super) fn take(
    unread: &mut Bytes,
    headers: &mut HeaderMap,
    limits: HeadLimits,
    names: HeaderNames,
) -> Result<Option<ResponseHead>, Malformed> {
    let bytes = std::mem::take(unread);
    let taken = with_slots(limits.max_headers, |slots| {
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, &bytes, slots)
            .map_err(|error| limits.explain(error))?;
        let httparse::Status::Complete(length) = status else {
            return Ok(None);
        };
        if length > limits.max_bytes {
            return Err(limits.too_large());
        }
        let mut head = built(&parsed, std::mem::take(headers), &bytes)?;
        let extensions = head.response.extensions_mut();
        Spelling::remember(extensions, (parsed.headers, &bytes), names);
        Ok(Some((head, length)))
    })?;
    *unread = bytes;
    match taken {
        Some((head, length)) => {
            unread.advance(length);
            Ok(Some(head))
        }
        None if unread.len() >= limits.max_bytes => Err(limits.too_large()),
        None => Ok(None),
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
    for each in parsed.headers.iter() {
        let (name, value) = header(each, bytes)?;
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
    if present::has(headers, &TRANSFER_ENCODING)
        && let Some(last) = headers.get_all(TRANSFER_ENCODING).iter().next_back()
    {
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

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::http1::head::may_end;
    use crate::http1::names::Names;

    const LIMITS: HeadLimits = HeadLimits {
        max_headers: 4,
        max_bytes: 256,
    };

    fn read(text: &str) -> Result<Option<ResponseHead>, Malformed> {
        let mut unread = Bytes::copy_from_slice(text.as_bytes());
        take(
            &mut unread,
            &mut HeaderMap::new(),
            LIMITS,
            HeaderNames::LowerCase,
        )
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
            let taken = take(
                &mut unread,
                &mut HeaderMap::new(),
                LIMITS,
                HeaderNames::LowerCase,
            );
            assert!(taken.expect("so far it is one").is_none(), "{end}");
            assert_eq!(unread.len(), end);
            assert!(!may_end(&text[..end], 1), "{end}");
        }
        let mut unread = Bytes::from_static(text);
        assert!(may_end(text, text.len() - 5));
        let head = take(
            &mut unread,
            &mut HeaderMap::new(),
            LIMITS,
            HeaderNames::LowerCase,
        );
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
    fn names_are_remembered_where_they_are_to_be() {
        for (wanted, written) in [
            (HeaderNames::LowerCase, "x-one: "),
            (HeaderNames::Preserved, "X-oNE: "),
        ] {
            let mut unread = Bytes::from_static(b"HTTP/1.1 200 OK\r\nX-oNE: 1\r\n\r\n");

            let head = take(&mut unread, &mut HeaderMap::new(), LIMITS, wanted);

            let head = head.expect("a head").expect("all of it").response;
            let mut bytes = bytes::BytesMut::new();
            let names = Names::of(head.extensions(), HeaderNames::LowerCase);
            names.put(&mut bytes, &HeaderName::from_static("x-one"));
            assert_eq!(bytes, written);
        }
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
