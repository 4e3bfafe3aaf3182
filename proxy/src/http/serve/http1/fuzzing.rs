//! What is fuzzed of requests: whatever comes in whatever pieces is one request, or none.

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use super::request::{self, BodyLength, RequestHead};
use crate::config::http1::HeaderNames;
use crate::fuzzing::Choices;
use crate::http1::chunked::Chunked;
use crate::http1::decoder::{Decoded, Decoder};
use crate::http1::head::HeadLimits;

const LIMITS: HeadLimits = HeadLimits {
    max_headers: 20,
    max_bytes: 4096,
};

/// What is read of a request.
#[derive(Debug, PartialEq)]
struct Read {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    keeps_alive: bool,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Whether nothing of it is missing.
    is_whole: bool,
    /// How many bytes it took, where it is whole.
    used: usize,
}

/// Pieces are of the size that the first byte says, and all together are read at once.
pub(in crate::http) fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let size = 1 + choices.below(16);
    let bytes = choices.rest();
    let at_once = read([bytes].into_iter());
    let in_pieces = read(bytes.chunks(size));
    match (&at_once, &in_pieces) {
        (Some(at_once), Some(in_pieces)) => assert_eq!(at_once, in_pieces),
        // What is found later to be none may have been one so far.
        (None, None) => {}
        _ => panic!("{at_once:?} at once, and {in_pieces:?} in pieces"),
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Read> {
    let mut unread = Bytes::new();
    let mut seen = 0;
    let mut reading: Option<(Read, Decoder)> = None;
    for piece in pieces {
        seen += piece.len();
        unread = [&unread[..], piece].concat().into();
        if reading.is_none() {
            let taken = request::take(&mut unread, LIMITS, HeaderNames::Preserved).ok()?;
            let Some(head) = taken else { continue };
            reading = Some(begun(head));
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

fn begun(head: RequestHead) -> (Read, Decoder) {
    let decoder = match head.length {
        BodyLength::Known(length) => Decoder::Length(length),
        BodyLength::Chunked => Decoder::Chunked(Box::new(Chunked::new(LIMITS))),
    };
    let (request, ()) = head.request.into_parts();
    let read = Read {
        method: request.method,
        target: request.uri,
        headers: request.headers,
        keeps_alive: head.keeps_alive,
        body: vec![],
        trailers: None,
        is_whole: false,
        used: 0,
    };
    (read, decoder)
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
