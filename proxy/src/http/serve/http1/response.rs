//! The head of a response as it is written, and how its body is framed (RFC 9112 §6).

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, TRAILER, TRANSFER_ENCODING,
};
use http::{Method, StatusCode, Version, response};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::request::RequestHead;
use crate::clock;
use crate::config::http1::HeaderNames;
use crate::http::serve::date;
use crate::http1::head::{content_length, names};
use crate::http1::names::Names;
use crate::http1::sending::Framing;
use crate::http1::text::{names_in, stored};
use crate::present;

/// What a request says of its response.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    is_head: bool,
    is_connect: bool,
    /// Whether it is of HTTP/1.0.
    is_old: bool,
    takes_trailers: bool,
}

impl Asked {
    pub(super) fn by(head: &RequestHead) -> Self {
        Asked {
            is_head: head.request.method() == Method::HEAD,
            is_connect: head.request.method() == Method::CONNECT,
            is_old: head.request.version() == Version::HTTP_10,
            takes_trailers: head.takes_trailers,
        }
    }
}

/// How it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Whether the connection may carry another request, as far as it is concerned.
    pub(super) keeps_alive: bool,
    /// How names of headers are written that nobody remembers.
    pub(super) names: HeaderNames,
}

/// A response but for its body.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) head: Bytes,
    pub(super) framing: Framing,
    /// Whether the connection ends with it.
    pub(super) is_last: bool,
    /// Whether what follows is no HTTP any more.
    pub(super) switches: bool,
}

/// How the length of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// By the header that is there.
    AsItIs,
    /// By one that is to be written.
    Length(u64),
    Chunked,
    Not,
}

/// What is added to `Connection`.
type Added = Option<&'static str>;

/// Writes the head of a response.
pub(super) fn head<B: Body>(
    response: &response::Parts,
    body: &B,
    asked: Asked,
    style: Style,
) -> Answered {
    let none = HeaderMap::new();
    let is_answer =
        !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS;
    let (status, headers) = match is_answer {
        true => (response.status, &response.headers),
        // It would be no end of the exchange, and nobody means it as one.
        false => (StatusCode::INTERNAL_SERVER_ERROR, &none),
    };
    let switches =
        status == StatusCode::SWITCHING_PROTOCOLS || (asked.is_connect && status.is_success());
    let (told, mut framing) = match is_answer {
        true => framing((status, headers), body, asked, switches),
        false => (Told::Length(0), Framing::None),
    };
    let keeps_alive = style.keeps_alive && is_answer && framing != Framing::UntilClose;
    let (added, is_last) = persistence(headers, (asked.is_old, keeps_alive, switches));
    let has_trailers = !asked.is_old && may_have_body(status, asked, switches);
    if let Framing::Chunked(announced) = &mut framing
        && asked.takes_trailers
    {
        *announced = names_in(headers.get_all(TRAILER).iter()).collect();
    }
    let head = stored(|bytes| {
        put_status(bytes, status, response, asked.is_old);
        let mut writing = Writing {
            bytes,
            told,
            has_trailers,
            added,
            names: Names::of(&response.extensions, style.names),
        };
        writing.put(headers);
    });
    Answered {
        head,
        framing,
        is_last,
        switches,
    }
}

/// RFC 9110 §6.4.1: whether there is a body, whatever is said of it.
fn may_have_body(status: StatusCode, asked: Asked, switches: bool) -> bool {
    let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    !(switches || has_none || asked.is_head)
}

fn framing<B: Body>(
    (status, headers): (StatusCode, &HeaderMap),
    body: &B,
    asked: Asked,
    switches: bool,
) -> (Told, Framing) {
    let may_have_body = may_have_body(status, asked, switches);
    let may_tell = may_have_body || (asked.is_head && !switches && !is_bodiless(status));
    let has_told = present::has(headers, &CONTENT_LENGTH);
    let (told, framing) = match (body.is_end_stream(), body.size_hint().exact()) {
        (true, _) if asked.is_head && has_told => (Told::AsItIs, Framing::None),
        (true, _) if asked.is_head => (Told::Not, Framing::None),
        (true, _) => (Told::Length(0), Framing::None),
        (false, Some(length)) if has_told => (Told::AsItIs, Framing::Length(length)),
        (false, Some(length)) => (Told::Length(length), Framing::Length(length)),
        (false, None) => match content_length(headers) {
            Ok(Some(length)) => (Told::AsItIs, Framing::Length(length)),
            _ if asked.is_old || !may_have_body => (Told::Not, Framing::UntilClose),
            _ => (Told::Chunked, Framing::Chunked(vec![])),
        },
    };
    let told = match may_tell {
        true => told,
        // A length that is said all the same stays, as that of what a 304 stands for; nothing that switches has one.
        false if has_told && !switches && told == Told::AsItIs => told,
        false => Told::Not,
    };
    match may_have_body {
        true => (told, framing),
        false => (told, Framing::None),
    }
}

fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What is added to `Connection`, and whether the connection ends.
fn persistence(
    headers: &HeaderMap,
    (is_old, keeps_alive, switches): (bool, bool, bool),
) -> (Added, bool) {
    let has_any = present::has(headers, &CONNECTION);
    let says = |option: &str| {
        has_any
            && headers
                .get_all(CONNECTION)
                .iter()
                .any(|line| names(line, option))
    };
    if switches {
        return (None, true);
    }
    let is_last = !keeps_alive || says("close");
    let added = match (is_old, is_last) {
        (false, true) => Some("close").filter(|_| !says("close")),
        // HTTP/1.0 closes where nothing is said.
        (true, false) => Some("keep-alive").filter(|_| !says("keep-alive")),
        (true, true) | (false, false) => None,
    };
    (added, is_last)
}

fn put_status(bytes: &mut BytesMut, status: StatusCode, response: &response::Parts, is_old: bool) {
    let reason = response.extensions.get::<ReasonPhrase>();
    if status == StatusCode::OK && reason.is_none() && !is_old {
        bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    bytes.extend_from_slice(match is_old {
        true => b"HTTP/1.0 ",
        false => b"HTTP/1.1 ",
    });
    bytes.extend_from_slice(status.as_str().as_bytes());
    bytes.extend_from_slice(b" ");
    // There has to be one: many readers expect it.
    let usual = || status.canonical_reason().unwrap_or("<none>").as_bytes();
    bytes.extend_from_slice(reason.map_or_else(usual, ReasonPhrase::as_bytes));
    bytes.extend_from_slice(b"\r\n");
}

/// The headers of a response on their way.
struct Writing<'a> {
    bytes: &'a mut BytesMut,
    told: Told,
    has_trailers: bool,
    added: Added,
    names: Names<'a>,
}

impl Writing<'_> {
    fn put(&mut self, headers: &HeaderMap) {
        let mut last = None;
        let mut has_date = false;
        for (name, value) in headers {
            let is_first = last.replace(name) != Some(name);
            match *name {
                TRANSFER_ENCODING => continue,
                CONTENT_LENGTH if self.told != Told::AsItIs || !is_first => continue,
                TRAILER if !self.has_trailers => continue,
                CONNECTION | TRAILER => {
                    if is_first {
                        self.put_list(name, headers);
                    }
                    continue;
                }
                DATE => has_date = true,
                _ => {}
            }
            self.put_line(name, value.as_bytes());
        }
        if let Some(added) = self.added.take() {
            self.put_line(&CONNECTION, added.as_bytes());
        }
        match self.told {
            Told::Length(length) => {
                let length = http::HeaderValue::from(length);
                self.put_line(&CONTENT_LENGTH, length.as_bytes());
            }
            Told::Chunked => self.put_line(&TRANSFER_ENCODING, b"chunked"),
            Told::AsItIs | Told::Not => {}
        }
        if !has_date {
            self.names.put(self.bytes, &DATE);
            date::put(self.bytes, clock::time_of_day());
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Lists are written on one line.
    fn put_list(&mut self, name: &HeaderName, headers: &HeaderMap) {
        self.names.put(self.bytes, name);
        let mut separator: &[u8] = b"";
        for value in headers.get_all(name) {
            self.bytes.extend_from_slice(separator);
            self.bytes.extend_from_slice(value.as_bytes());
            separator = b", ";
        }
        if let Some(added) = self.added.take_if(|_| *name == CONNECTION) {
            self.bytes.extend_from_slice(separator);
            self.bytes.extend_from_slice(added.as_bytes());
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn put_line(&mut self, name: &HeaderName, value: &[u8]) {
        self.names.put(self.bytes, name);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
