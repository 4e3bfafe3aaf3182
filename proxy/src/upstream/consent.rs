//! Whether a peer lets requests of HTTP/1.1 share connections, as far as it has said.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::outlier::millis;

/// How long whoever has declined is not asked again: it may be replaced meanwhile.
const DECLINED: Duration = Duration::from_secs(60);

/// What it has said.
#[derive(Debug, Default)]
pub(super) struct Consent {
    /// On the scale of [`millis`]; 0: it has not declined.
    declined_until: AtomicU64,
}

impl Consent {
    /// Whether a request may ask, or is agreed to already. Of those that come some time after it has declined one asks
    /// again, and the others do not wait for the answer.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        let until = self.declined_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let is_over = millis(now) >= until;
        let order = Ordering::Relaxed;
        let later = millis(now + DECLINED);
        let changed = || {
            self.declined_until
                .compare_exchange(until, later, order, order)
        };
        is_over && changed().is_ok()
    }

    /// It has declined.
    pub(super) fn decline(&self, now: Instant) {
        let until = millis(now + DECLINED);
        self.declined_until.store(until, Ordering::Relaxed);
    }

    /// It has agreed.
    pub(super) fn agree(&self) {
        if self.declined_until.load(Ordering::Relaxed) != 0 {
            self.declined_until.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_declined_is_asked_again_by_one() {
        let (consent, now) = (Consent::default(), Instant::now());
        assert!(consent.may_ask(now) && consent.may_ask(now));

        consent.decline(now);
        assert!(!consent.may_ask(now + Duration::from_secs(59)));
        let later = now + Duration::from_secs(61);
        assert!(consent.may_ask(later));
        assert!(!consent.may_ask(later), "another asks already");

        consent.agree();
        assert!(consent.may_ask(later) && consent.may_ask(later));
    }
}
