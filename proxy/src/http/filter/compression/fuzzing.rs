//! What is fuzzed of content codings.

use http::{HeaderMap, HeaderValue, header};

use super::codec::{Codec, Decoder};
use super::{accepted, weight};
use crate::config::filter::compression::Coding;

/// No more comes of a body than its ratio allows, at any time; the first byte says which coding.
pub(in crate::http::filter) fn decompress(bytes: &[u8]) {
    const RATIO: u64 = 100;
    const ALWAYS: u64 = 64 * 1024;
    let Some((coding, mut body)) = bytes.split_first() else {
        return;
    };
    let coding =
        [Coding::Gzip(6), Coding::Brotli(4, 18), Coding::Zstd(3)][usize::from(*coding) % 3];
    let allowed = (body.len() as u64 * RATIO).max(ALWAYS);
    let mut decoder = Decoder::new(coding, RATIO);
    let mut made = 0;
    while !body.is_empty() {
        match decoder.change(&mut body) {
            Ok(piece) => made += piece.len() as u64,
            Err(_) => return,
        }
        assert!(made <= allowed, "{made} of {allowed}");
    }
    if let Ok(piece) = decoder.finish() {
        assert!(made + piece.len() as u64 <= allowed);
    }
}

/// Weights are between nothing and all.
pub(in crate::http::filter) fn accept_encoding(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::ACCEPT_ENCODING, value);
        }
    }
    let Some(accepted) = accepted(&headers) else {
        return;
    };
    for name in ["gzip", "br", "zstd", "identity"] {
        assert!(weight(&accepted, name) <= 1000);
    }
    for (name, weight) in &accepted {
        assert!(*weight <= 1000 && !name.is_empty());
    }
}
