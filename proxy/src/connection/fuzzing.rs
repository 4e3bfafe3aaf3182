//! What is fuzzed of first bytes: what a client speaks, and what its TLS hello says.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, ReadBuf};

use super::detect::{Seen, classify};
use super::tls::read_hello;
use crate::fuzzing::Target;

pub(crate) const TARGETS: [Target; 2] = [
    Target::new("detect", detect),
    Target::new("tls_hello", tls_hello),
];

/// What is decided of the first bytes stays decided when more come: the verdict does not depend on how they are cut.
fn detect(bytes: &[u8]) {
    let whole = classify(bytes);
    for end in 0..bytes.len().min(512) {
        if let Some(seen) = classify(&bytes[..end]) {
            return assert_eq!(Some(seen), whole, "after {end} bytes");
        }
    }
    if bytes.len() >= 16 * 1024 {
        assert!(whole.is_some(), "still undecided");
    }
    if whole == Some(Seen::Http1) {
        assert!(bytes.contains(&b'\n'));
    }
}

/// The same is read of a hello in one piece as in pieces of the first byte's size.
fn tls_hello(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let size = usize::from(*size).max(1);
    assert_eq!(read(bytes, size), read(bytes, bytes.len().max(1)));
}

fn read(bytes: &[u8], size: usize) -> Option<(Vec<String>, Option<String>)> {
    let mut pieces = Pieces { rest: bytes, size };
    let mut buffer = BytesMut::new();
    let hello = read_hello(&mut pieces, &mut buffer).now_or_never();
    let hello = hello.expect("bytes in memory are never waited for").ok()?;
    assert!(bytes.starts_with(&buffer), "what was read is kept");
    Some((hello.protocols, hello.server_name))
}

/// Bytes that come in pieces.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.rest.len().min(self.size).min(buffer.remaining());
        let (piece, rest) = self.rest.split_at(length);
        buffer.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
