//! Random numbers for balancing, weights, percentages and identifiers: fast, and not for secrets.

use std::cell::RefCell;

use bytes::BytesMut;
use http::HeaderValue;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

thread_local! {
    static RANDOM: RefCell<SmallRng> = RefCell::new(rand::make_rng());
}

/// A number drawn evenly from all of `u32`.
pub fn draw() -> u32 {
    RANDOM.with_borrow_mut(|random| random.random())
}

/// Lends the thread's generator.
pub fn with<T>(draw: impl FnOnce(&mut SmallRng) -> T) -> T {
    RANDOM.with_borrow_mut(draw)
}

/// A number below `end`; 0 where `end` is 0.
pub fn below(random: &mut impl Rng, end: u64) -> u64 {
    if end == 0 {
        0
    } else {
        random.random_range(0..end)
    }
}

thread_local! {
    /// Where the next identifiers are written: for many of them memory is taken once.
    static IDENTIFIERS: RefCell<BytesMut> = RefCell::default();
}
const IDENTIFIERS_AT_ONCE: usize = 32;

/// An identifier as the value of a header.
///
/// HTTP/2 sends it as what is never indexed: it comes once, and would push out of the table what comes again.
pub fn identifier(text: &[u8]) -> HeaderValue {
    let text = IDENTIFIERS.with_borrow_mut(|identifiers| {
        if identifiers.capacity() < text.len() {
            identifiers.reserve(text.len() * IDENTIFIERS_AT_ONCE);
        }
        identifiers.extend_from_slice(text);
        identifiers.split().freeze()
    });
    let mut value = HeaderValue::from_maybe_shared(text)
        .expect("hexadecimal digits and dashes are a header value");
    value.set_sensitive(true);
    value
}

/// The text of a random UUID (RFC 9562 §5.4).
pub fn uuid() -> [u8; 36] {
    const HALVES: [(usize, usize); 16] = halves();
    let mut bits: u128 = with(|random| random.random());
    bits = bits & !(0xf << 76) | (0x4 << 76);
    bits = bits & !(0x3 << 62) | (0x2 << 62);
    let mut text = [b'-'; 36];
    for (byte, (high, low)) in bits.to_be_bytes().into_iter().zip(HALVES) {
        let [one, other] = DIGITS[usize::from(byte)];
        (text[high], text[low]) = (one, other);
    }
    text
}

/// The two hexadecimal digits of each byte.
pub const DIGITS: [[u8; 2]; 256] = digits();

const fn digits() -> [[u8; 2]; 256] {
    const OF_HALF: &[u8; 16] = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < all.len() {
        all[byte] = [OF_HALF[byte >> 4], OF_HALF[byte & 0xf]];
        byte += 1;
    }
    all
}

/// Where the two digits of each byte of a UUID are.
const fn halves() -> [(usize, usize); 16] {
    let mut halves = [(0, 0); 16];
    let (mut byte, mut position) = (0, 0);
    while byte < 16 {
        if matches!(byte, 4 | 6 | 8 | 10) {
            position += 1;
        }
        halves[byte] = (position, position + 1);
        position += 2;
        byte += 1;
    }
    halves
}
