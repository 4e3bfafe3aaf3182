//! Which worker this thread is. Pools keep connections apart by worker, so that a request and its upstream
//! connection run on the same thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

static COUNT: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Makes this thread a worker. Called once by each, before it serves.
pub fn enter(index: usize) {
    COUNT.fetch_max(index + 1, Ordering::Relaxed);
    INDEX.set(index);
}

/// How many there are: as many as there are workers, and one at least.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// The one of this thread; other threads share the first.
pub fn current() -> usize {
    INDEX.get()
}
