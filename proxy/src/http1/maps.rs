//! Maps of headers that were used before, of each worker: their memory is used again.

use std::cell::RefCell;

use http::HeaderMap;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(vec![]) };
}
/// No more of them are kept, and none that is larger: as many requests may be on their way at a time before the first is answered.
const MAX_SPARE: usize = 64;
const MAX_SPARE_HEADERS: usize = 128;

/// One that is empty.
pub(crate) fn take() -> HeaderMap {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps headers that nobody needs any more.
pub(crate) fn spare(mut headers: HeaderMap) {
    let has_use = (1..=MAX_SPARE_HEADERS).contains(&headers.capacity());
    SPARE.with_borrow_mut(|spare| {
        if has_use && spare.len() < MAX_SPARE {
            headers.clear();
            spare.push(headers);
        }
    });
}
