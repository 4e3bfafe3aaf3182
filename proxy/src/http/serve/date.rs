//! What time it is, as `Date` says it (RFC 9110 §6.6.1): written anew once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use http::HeaderValue;

thread_local! {
    /// The second, and how it is written.
    static NOW: RefCell<(u64, HeaderValue)> =
        const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// Writes the time.
pub(super) fn put(bytes: &mut BytesMut, now: SystemTime) {
    told(now, |time| bytes.extend_from_slice(time.as_bytes()));
}

/// The time as a header.
pub(super) fn header(now: SystemTime) -> HeaderValue {
    told(now, HeaderValue::clone)
}

fn told<T>(now: SystemTime, tell: impl FnOnce(&HeaderValue) -> T) -> T {
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    NOW.with_borrow_mut(|(written, time)| {
        if *written != second || time.is_empty() {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            *time = HeaderValue::try_from(text).expect("a date is made of visible characters");
            *written = second;
        }
        tell(time)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_second() {
        let text = |millis| {
            let now = UNIX_EPOCH + Duration::from_millis(millis);
            let mut bytes = BytesMut::new();
            put(&mut bytes, now);
            assert_eq!(bytes, header(now).as_bytes());
            bytes
        };

        assert_eq!(text(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(784_111_778_000), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
