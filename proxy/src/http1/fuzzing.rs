//! What is fuzzed of messages, whichever side reads them: whatever comes in whatever pieces is one message, or none.

use std::fmt;

use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderMap};

use super::decoder::{Decoded, Decoder};
use super::head::HeadLimits;
use super::malformed::Malformed;
use super::names::Names;
use super::text::put_headers;
use crate::config::http1::HeaderNames;

/// What is taken of each head.
pub(crate) const LIMITS: HeadLimits = HeadLimits {
    max_headers: 20,
    max_bytes: 4096,
};
/// Names are kept as they came.
pub(crate) const NAMES: HeaderNames = HeaderNames::PreservedElseProper;

/// Where the body is found of a message with this head; none where there is no head yet.
pub(crate) type Taken<H> = Result<Option<(H, Decoder)>, Malformed>;

/// What is read of a message.
#[derive(Debug, PartialEq)]
struct Message<H> {
    head: H,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Whether nothing of it is missing.
    is_whole: bool,
    /// How many bytes it took, where it is whole.
    used: usize,
}

/// Reads a message in pieces of a size, and all of it at once.
pub(crate) fn run<H>(bytes: &[u8], piece_bytes: usize, take: impl Fn(&mut Bytes) -> Taken<H>)
where
    H: fmt::Debug + PartialEq,
{
    let at_once = read([bytes].into_iter(), &take);
    let in_pieces = read(bytes.chunks(piece_bytes), &take);
    match (&at_once, &in_pieces) {
        (Some(at_once), Some(in_pieces)) => assert_eq!(at_once, in_pieces),
        // What is found later to be none may have been one so far.
        (None, None) => {}
        _ => panic!("{at_once:?} at once, and {in_pieces:?} in pieces"),
    }
}

/// Headers as they are written with the names that they came with.
pub(crate) fn written(headers: &HeaderMap, extensions: &Extensions) -> BytesMut {
    let mut bytes = BytesMut::new();
    put_headers(&mut bytes, headers, Names::of(extensions, NAMES));
    bytes
}

fn read<'a, H>(
    pieces: impl Iterator<Item = &'a [u8]>,
    take: impl Fn(&mut Bytes) -> Taken<H>,
) -> Option<Message<H>> {
    let mut unread = Bytes::new();
    let mut seen = 0;
    let mut reading: Option<(Message<H>, Decoder)> = None;
    for piece in pieces {
        seen += piece.len();
        unread = [&unread[..], piece].concat().into();
        if reading.is_none() {
            let Some((head, decoder)) = take(&mut unread).ok()? else {
                continue;
            };
            reading = Some((Message::of(head), decoder));
        }
        if let Some((message, decoder)) = &mut reading {
            message.drain(decoder, &mut unread)?;
            if message.is_whole {
                message.used = seen - unread.len();
                break;
            }
        }
    }
    reading.map(|(message, _)| message)
}

impl<H> Message<H> {
    fn of(head: H) -> Self {
        Message {
            head,
            body: vec![],
            trailers: None,
            is_whole: false,
            used: 0,
        }
    }

    /// Reads what there is of the body.
    fn drain(&mut self, decoder: &mut Decoder, unread: &mut Bytes) -> Option<()> {
        loop {
            match decoder.decode(unread).ok()? {
                Decoded::Data(data) => {
                    assert!(!data.is_empty());
                    self.body.extend_from_slice(&data);
                }
                Decoded::More => {
                    assert!(unread.is_empty());
                    return Some(());
                }
                Decoded::End(trailers) => {
                    self.trailers = trailers;
                    self.is_whole = true;
                    return Some(());
                }
            }
        }
    }
}
