//! What is fuzzed of responses: whatever comes in whatever pieces is one response, or none.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::head::{self, BodyLength, ResponseHead};
use crate::config::http1::HeaderNames;
use crate::fuzzing::Choices;
use crate::http1::chunked::Chunked;
use crate::http1::decoder::{Decoded, Decoder};
use crate::http1::head::HeadLimits;

const LIMITS: HeadLimits = HeadLimits {
    max_headers: 20,
    max_bytes: 4096,
};

/// What is read of a response.
#[derive(Debug, PartialEq)]
struct Read {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Whether nothing of it is missing.
    is_whole: bool,
    /// How many bytes it took, where it is whole.
    used: usize,
}

/// Pieces are of the size that the first byte says, and all together are read at once.
pub(crate) fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let size = 1 + choices.below(16);
    let method = choices.one(&[Method::GET, Method::HEAD]).clone();
    let bytes = choices.rest();
    let at_once = read([bytes].into_iter(), &method);
    let in_pieces = read(bytes.chunks(size), &method);
    match (&at_once, &in_pieces) {
        (Some(at_once), Some(in_pieces)) => assert_eq!(at_once, in_pieces),
        // What is found later to be none may have been one so far.
        (None, None) => {}
        _ => panic!("{at_once:?} at once, and {in_pieces:?} in pieces"),
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, method: &Method) -> Option<Read> {
    let mut unread = Bytes::new();
    let mut seen = 0;
    let mut reading: Option<(Read, Decoder)> = None;
    for piece in pieces {
        seen += piece.len();
        unread = [&unread[..], piece].concat().into();
        if reading.is_none() {
            let names = HeaderNames::Preserved;
            let taken = head::take(&mut unread, &mut HeaderMap::new(), LIMITS, names).ok()?;
            let Some(head) = taken else { continue };
            reading = Some(begun(head, method)?);
        }
        if let Some((read, decoder)) = &mut reading {
            drain(read, decoder, &mut unread)?;
            if read.is_whole {
                read.used = seen - unread.len();
                break;
            }
        }
    }
    reading.map(|(read, _)| read)
}

fn begun(head: ResponseHead, method: &Method) -> Option<(Read, Decoder)> {
    let decoder = match head::body_length(&head.response, method).ok()? {
        BodyLength::Known(length) => Decoder::Length(length),
        BodyLength::Chunked => Decoder::Chunked(Box::new(Chunked::new(LIMITS))),
        BodyLength::UntilClose => Decoder::UntilClose,
        BodyLength::Switched => Decoder::Length(0),
    };
    let read = Read {
        status: head.response.status().as_u16(),
        headers: head.response.headers().clone(),
        body: vec![],
        trailers: None,
        is_whole: false,
        used: 0,
    };
    Some((read, decoder))
}

fn drain(read: &mut Read, decoder: &mut Decoder, unread: &mut Bytes) -> Option<()> {
    loop {
        match decoder.decode(unread).ok()? {
            Decoded::Data(data) => {
                assert!(!data.is_empty());
                read.body.extend_from_slice(&data);
            }
            Decoded::More => {
                assert!(unread.is_empty());
                return Some(());
            }
            Decoded::End(trailers) => {
                read.trailers = trailers;
                read.is_whole = true;
                return Some(());
            }
        }
    }
}
