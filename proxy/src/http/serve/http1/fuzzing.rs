//! What is fuzzed of requests.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Uri};

use super::request::{self, BodyLength};
use crate::fuzzing::Choices;
use crate::http1::chunked::Chunked;
use crate::http1::decoder::Decoder;
use crate::http1::fuzzing::{self, LIMITS, NAMES, Taken, written};

/// What is read of a head.
#[derive(Debug, PartialEq)]
struct Head {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    written: BytesMut,
    keeps_alive: bool,
}

/// Pieces are of the size that the first byte says, and all together are read at once.
pub(in crate::http) fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let size = 1 + choices.below(16);
    fuzzing::run(choices.rest(), size, take);
}

fn take(unread: &mut Bytes) -> Taken<Head> {
    let Some(head) = request::take(unread, LIMITS, NAMES)? else {
        return Ok(None);
    };
    let decoder = match head.length {
        BodyLength::Known(length) => Decoder::Length(length),
        BodyLength::Chunked => Decoder::Chunked(Box::new(Chunked::new(LIMITS))),
    };
    let (request, _) = head.request.into_parts();
    let head = Head {
        method: request.method,
        target: request.uri,
        written: written(&request.headers, &request.extensions),
        headers: request.headers,
        keeps_alive: head.keeps_alive,
    };
    Ok(Some((head, decoder)))
}
