//! What heads of requests and of responses have in common: their limits, and what their headers say of the connection
//! and of the body that follows (RFC 9112 §6.3 and §9.3).
//!
//! As strict as RFC 9112 lets a reader be: `httparse` reads lines as it does by default, without leniency of any kind.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::{HeaderMap, HeaderValue, Version};

use super::malformed::Malformed;
use crate::config::http::DEFAULT_MAX_HEADERS;

/// What is taken of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    pub(crate) max_headers: usize,
    pub(crate) max_bytes: usize,
}

/// No message is longer: what cannot be counted cannot be waited for.
pub(crate) const MAX_LENGTH: u64 = u64::MAX - 2;

impl HeadLimits {
    /// Says that a head is larger.
    pub(crate) fn too_large(self) -> Malformed {
        Malformed::LargeHead {
            max_bytes: self.max_bytes,
        }
    }

    /// What `httparse` has found wrong with a head.
    pub(crate) fn explain(self, error: httparse::Error) -> Malformed {
        match error {
            httparse::Error::TooManyHeaders => Malformed::ManyHeaders {
                max_headers: self.max_headers,
            },
            error => Malformed::Head(error),
        }
    }
}

/// Reads a head with room for so many headers; those that most configurations allow have their place on the stack.
pub(crate) fn with_slots<'b, T>(
    max_headers: usize,
    read: impl FnOnce(&mut [MaybeUninit<httparse::Header<'b>>]) -> T,
) -> T {
    let mut few = [const { MaybeUninit::uninit() }; DEFAULT_MAX_HEADERS];
    let mut many = vec![];
    let slots = match few.get_mut(..max_headers) {
        Some(slots) => slots,
        None => {
            many.resize_with(max_headers, MaybeUninit::uninit);
            &mut many[..]
        }
    };
    read(slots)
}

/// A header of a head that was read into these bytes. Its value is a part of them: nothing is copied.
pub(crate) fn header(
    parsed: &httparse::Header<'_>,
    bytes: &Bytes,
) -> Result<(HeaderName, HeaderValue), Malformed> {
    let name = HeaderName::from_bytes(parsed.name.as_bytes())
        .map_err(|_| Malformed::Head(httparse::Error::HeaderName))?;
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(parsed.value))
        .map_err(|_| Malformed::Head(httparse::Error::HeaderValue))?;
    Ok((name, value))
}

/// Whether a head may end in what has come behind so many bytes: a slow one is not read anew with each of its bytes.
pub(crate) fn may_end(unread: &[u8], before: usize) -> bool {
    let new = unread.get(before.saturating_sub(3)..).unwrap_or_default();
    let mut lines = new.split_inclusive(|byte| *byte == b'\n').skip(1);
    before == 0 || lines.any(|line| line == b"\n" || line == b"\r\n")
}

/// Whether a connection outlives a message (RFC 9112 §9.3).
pub(crate) struct Persistence {
    pub(crate) is_kept: bool,
    is_closed: bool,
}

impl Persistence {
    /// As the version says that knows nothing else.
    pub(crate) fn of(version: Version) -> Self {
        Persistence {
            is_kept: version == Version::HTTP_11,
            is_closed: false,
        }
    }

    /// One line of several: once any of them says that it closes, no other says that it does not.
    pub(crate) fn hear(&mut self, connection: &HeaderValue) {
        self.is_closed |= names(connection, "close");
        self.is_kept = !self.is_closed && (self.is_kept || names(connection, "keep-alive"));
    }
}

/// Whether a list names an option.
pub(crate) fn names(list: &HeaderValue, option: &str) -> bool {
    let mut options = list.to_str().unwrap_or_default().split(',');
    options.any(|each| each.trim().eq_ignore_ascii_case(option))
}

/// Whether the last coding of a list is `chunked`.
pub(crate) fn ends_chunked(list: &HeaderValue) -> bool {
    let list = list.to_str().unwrap_or_default();
    let last = list.rsplit(',').next().unwrap_or_default();
    last.trim().eq_ignore_ascii_case("chunked")
}

/// A length that was sent several times is not no good as long as it is the same (RFC 9110 §8.6); not a number, or not one.
pub(crate) struct NoLength;

/// The length that headers tell; `None` where they tell none.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, NoLength> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(line), None) = (lines.next(), lines.next())
        && let Some(length) = plain(line.as_bytes())
    {
        return Ok(Some(length));
    }
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        let line = line.to_str().map_err(|_| NoLength)?;
        for text in line.split(',') {
            let each = digits(text.trim()).ok_or(NoLength)?;
            if length.is_some_and(|length| length != each) {
                return Err(NoLength);
            }
            length = Some(each);
        }
    }
    Ok(length)
}

/// A number in so few digits that there is nothing to check but that they are digits.
fn plain(text: &[u8]) -> Option<u64> {
    const MAX_DIGITS: usize = 19;
    let mut digits = text.iter().map(|byte| byte.wrapping_sub(b'0'));
    match (1..=MAX_DIGITS).contains(&text.len()) {
        true => digits.try_fold(0, |number, digit| {
            (digit < 10).then(|| number * 10 + u64::from(digit))
        }),
        false => None,
    }
}

/// A number in digits alone: `parse` would take a sign.
pub(crate) fn digits(text: &str) -> Option<u64> {
    if let Some(number) = plain(text.as_bytes()) {
        return Some(number);
    }
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}
