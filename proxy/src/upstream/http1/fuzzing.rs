//! What is fuzzed of responses.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};

use super::head::{self, BodyLength};
use crate::fuzzing::Choices;
use crate::http1::chunked::Chunked;
use crate::http1::decoder::Decoder;
use crate::http1::fuzzing::{self, LIMITS, NAMES, Taken, written};

/// What is read of a head.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    headers: HeaderMap,
    written: BytesMut,
}

/// Pieces are of the size that the first byte says, and all together are read at once.
pub(crate) fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let size = 1 + choices.below(16);
    let method = choices.one(&[Method::GET, Method::HEAD]).clone();
    fuzzing::run(choices.rest(), size, |unread| take(unread, &method));
}

fn take(unread: &mut Bytes, method: &Method) -> Taken<Head> {
    let Some(head) = head::take(unread, &mut HeaderMap::new(), LIMITS, NAMES)? else {
        return Ok(None);
    };
    let decoder = match head::body_length(&head.response, method)? {
        BodyLength::Known(length) => Decoder::Length(length),
        BodyLength::Chunked => Decoder::Chunked(Box::new(Chunked::new(LIMITS))),
        BodyLength::UntilClose => Decoder::UntilClose,
        BodyLength::Switched => Decoder::Length(0),
    };
    let (response, ()) = head.response.into_parts();
    let head = Head {
        status: response.status.as_u16(),
        written: written(&response.headers, &response.extensions),
        headers: response.headers,
    };
    Ok(Some((head, decoder)))
}
