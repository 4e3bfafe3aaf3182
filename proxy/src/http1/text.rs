//! What is written of messages beside their bodies: headers, sizes of chunks, trailers.

use std::cell::RefCell;
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::names::Names;

/// Writes headers, each on its own line.
pub(crate) fn put_headers(bytes: &mut BytesMut, headers: &HeaderMap, names: Names<'_>) {
    for (name, value) in headers {
        names.put(bytes, name);
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
}

/// The names in lists of names.
pub(crate) fn names_in<'a>(
    lists: impl Iterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = HeaderName> {
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
}

/// The line before a chunk.
pub(crate) fn chunk_size(bytes: usize) -> Bytes {
    stored(|line| {
        write!(line, "{bytes:X}\r\n").expect("a buffer of bytes grows as is needed");
    })
}

/// The end of a body in chunks, with those of its trailers that were announced and may be sent.
pub(crate) fn trailers(trailers: &HeaderMap, announced: &[HeaderName]) -> Bytes {
    let sent: HeaderMap = trailers
        .iter()
        .filter(|(name, _)| announced.contains(name) && may_trail(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    stored(|bytes| {
        bytes.extend_from_slice(b"0\r\n");
        put_headers(bytes, &sent, Names::LowerCase);
        bytes.extend_from_slice(b"\r\n");
    })
}

/// RFC 9110 §6.5.1: what is needed before a body is read has no place behind it.
fn may_trail(name: &HeaderName) -> bool {
    !matches!(
        *name,
        header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::CONTENT_TYPE
            | header::HOST
            | header::MAX_FORWARDS
            | header::SET_COOKIE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::TE
    )
}

thread_local! {
    /// Where the next heads are written: for many of them memory is taken once.
    static HEADS: RefCell<BytesMut> = RefCell::default();
}
/// As much memory is taken at once, or as one head needs.
const HEADS_BYTES: usize = 4096;
/// What most heads fit into.
const HEAD_BYTES: usize = 512;

/// What is written by this function, which writes nothing else of this kind meanwhile.
pub(crate) fn stored(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    HEADS.with_borrow_mut(|heads| {
        if heads.capacity() < HEAD_BYTES {
            heads.reserve(HEADS_BYTES);
        }
        write(heads);
        heads.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_chunks_are_hexadecimal() {
        assert_eq!(chunk_size(1), "1\r\n");
        assert_eq!(chunk_size(0x1ABC), "1ABC\r\n");
    }

    #[test]
    fn trailers_are_written_that_were_announced_and_may_be() {
        let names = HeaderValue::from_static("A, b, host");
        let announced: Vec<_> = names_in([&names].into_iter()).collect();
        let all = ["a", "c", "host", "b"].map(|name| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static("1"))
        });

        let end = trailers(&HeaderMap::from_iter(all), &announced);

        assert_eq!(end, "0\r\na: 1\r\nb: 1\r\n\r\n");
    }
}
