//! What time it is, as `Date` says it (RFC 9110 §6.6.1): written anew once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;

thread_local! {
    /// The second, and how it is written.
    static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Writes the time.
pub(super) fn put(bytes: &mut BytesMut, now: SystemTime) {
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    NOW.with_borrow_mut(|(written, text)| {
        if *written != second || text.is_empty() {
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            *written = second;
        }
        bytes.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_second() {
        let text = |seconds| {
            let mut bytes = BytesMut::new();
            put(&mut bytes, UNIX_EPOCH + Duration::from_millis(seconds));
            bytes
        };

        assert_eq!(text(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(784_111_778_000), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
