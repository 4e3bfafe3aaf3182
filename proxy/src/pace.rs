//! A timer of each worker that is due before those of its requests are.
//!
//! Who sets a timer that is due before all others has the runtime write to a descriptor of its own, and wait once more
//! for events: some other thread might have set it. The time-out of a request that is alone is such a timer, each time. Beside
//! one that is due within a second no time-out of more than that is. It runs for a second after somebody has set such a
//! timer, and no longer: an idle worker sleeps.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

thread_local! {
    static OWN: Pace = const { Pace::new() };
}
/// How long it runs for those who have asked for it.
const PERIOD: Duration = Duration::from_secs(1);

/// That of a worker.
struct Pace {
    /// Whether anybody has asked for it since it was last set.
    is_asked_for: Cell<bool>,
    /// Who sets it, while it does not run.
    resting: RefCell<Option<Waker>>,
}

/// A timer is to be set in this thread that others do not depend on.
pub fn ask() {
    OWN.with(Pace::ask);
}

/// Keeps the timer of this thread; never returns.
pub async fn keep() {
    loop {
        poll_fn(|context| OWN.with(|own| own.poll_asked(context.waker()))).await;
        tokio::time::sleep(PERIOD).await;
    }
}

impl Pace {
    const fn new() -> Self {
        Pace {
            is_asked_for: Cell::new(false),
            resting: RefCell::new(None),
        }
    }

    fn ask(&self) {
        if !self.is_asked_for.replace(true)
            && let Some(waker) = self.resting.take()
        {
            waker.wake();
        }
    }

    fn poll_asked(&self, waker: &Waker) -> Poll<()> {
        if self.is_asked_for.take() {
            self.resting.take();
            return Poll::Ready(());
        }
        self.resting.replace(Some(waker.clone()));
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_sets_it_is_woken_once_and_only_while_it_rests() {
        let (pace, woken) = (Pace::new(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let times = || woken.0.load(Ordering::Relaxed);
        assert!(pace.poll_asked(&waker).is_pending());

        pace.ask();
        pace.ask();

        assert_eq!(times(), 1);
        assert!(pace.poll_asked(&waker).is_ready());
        // It runs.
        pace.ask();
        assert_eq!(times(), 1);
        assert!(pace.poll_asked(&waker).is_ready());
        assert!(pace.poll_asked(&waker).is_pending());
    }
}
