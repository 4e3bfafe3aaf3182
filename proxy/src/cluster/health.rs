//! What active health checks say of an endpoint.
//!
//! `upstream::health` asks and records here; balancing reads it. Nothing is said of endpoints that nobody asks.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// The state of an endpoint's health checks.
#[derive(Debug, Default)]
pub struct ActiveHealth {
    state: AtomicU8,
    is_degraded: AtomicU8,
    /// In a row, of what the state is not.
    contrary: AtomicU32,
}

const UNCHECKED: u8 = 0;
const EXPECTED: u8 = 1;
const HEALTHY: u8 = 2;
const FAILED: u8 = 3;

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// Well.
    Passed,
    /// Well, and the endpoint asks to be spared.
    PassedDegraded,
    /// Not; once is not enough to say that it is unhealthy.
    Failed,
    /// Not, and once is enough.
    FailedForGood,
}

/// What changed with a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The endpoint may become something else: the next check is the sooner one.
    Pending,
    /// It is healthy now.
    Healthy,
    /// It is unhealthy now.
    Unhealthy,
}

impl ActiveHealth {
    /// Whether it may not be used: it has failed, or has not been asked yet.
    pub fn is_failed(&self) -> bool {
        matches!(self.state.load(Ordering::Relaxed), EXPECTED | FAILED)
    }

    /// Whether it has been asked, and failed.
    pub fn has_failed(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FAILED
    }

    /// Whether it has not been asked yet, and is going to be.
    pub fn is_expected(&self) -> bool {
        self.state.load(Ordering::Relaxed) == EXPECTED
    }

    /// Whether it has been asked, and is well.
    pub fn is_passed(&self) -> bool {
        self.state.load(Ordering::Relaxed) == HEALTHY
    }

    /// Whether it asks to be spared.
    pub fn is_degraded(&self) -> bool {
        self.is_degraded.load(Ordering::Relaxed) != 0
    }

    /// It is going to be asked, and may not be used before.
    pub fn expect_checks(&self) {
        let _ =
            self.state
                .compare_exchange(UNCHECKED, EXPECTED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Nobody asks any more.
    pub fn forget(&self) {
        self.state.store(UNCHECKED, Ordering::Relaxed);
        self.is_degraded.store(0, Ordering::Relaxed);
        self.contrary.store(0, Ordering::Relaxed);
    }

    /// Records a check; thresholds are counts in a row. Called by one task at a time.
    pub fn record(&self, checked: Checked, healthy_after: u32, unhealthy_after: u32) -> Change {
        let before = self.state.load(Ordering::Relaxed);
        let is_degraded = u8::from(checked == Checked::PassedDegraded);
        let was_degraded = self.is_degraded.swap(is_degraded, Ordering::Relaxed);
        match (before, checked) {
            // Envoy: the first answer decides at once.
            (EXPECTED | UNCHECKED, Checked::Passed | Checked::PassedDegraded) => {
                self.become_state(HEALTHY, Change::Healthy)
            }
            (EXPECTED | UNCHECKED, _) | (HEALTHY, Checked::FailedForGood) => {
                self.become_state(FAILED, Change::Unhealthy)
            }
            (HEALTHY, Checked::Failed) => self.count(unhealthy_after, FAILED, Change::Unhealthy),
            (FAILED, Checked::Passed | Checked::PassedDegraded) => {
                self.count(healthy_after, HEALTHY, Change::Healthy)
            }
            _ => {
                self.contrary.store(0, Ordering::Relaxed);
                match was_degraded == is_degraded {
                    true => Change::None,
                    false => Change::Healthy,
                }
            }
        }
    }

    fn count(&self, enough: u32, state: u8, change: Change) -> Change {
        let contrary = self.contrary.load(Ordering::Relaxed).saturating_add(1);
        if contrary >= enough {
            return self.become_state(state, change);
        }
        self.contrary.store(contrary, Ordering::Relaxed);
        Change::Pending
    }

    fn become_state(&self, state: u8, change: Change) -> Change {
        self.contrary.store(0, Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_not_used_before_its_first_check() {
        let health = ActiveHealth::default();
        assert!(!health.is_failed());

        health.expect_checks();
        assert!(health.is_failed());

        assert_eq!(health.record(Checked::Passed, 3, 3), Change::Healthy);
        assert!(!health.is_failed());
    }

    #[test]
    fn it_takes_so_many_checks_in_a_row_to_change() {
        let health = ActiveHealth::default();
        health.expect_checks();
        health.record(Checked::Passed, 2, 3);

        assert_eq!(health.record(Checked::Failed, 2, 3), Change::Pending);
        assert_eq!(health.record(Checked::Failed, 2, 3), Change::Pending);
        assert_eq!(health.record(Checked::Passed, 2, 3), Change::None);
        assert_eq!(health.record(Checked::Failed, 2, 3), Change::Pending);
        assert_eq!(health.record(Checked::Failed, 2, 3), Change::Pending);
        assert_eq!(health.record(Checked::Failed, 2, 3), Change::Unhealthy);
        assert!(health.has_failed());
        assert_eq!(health.record(Checked::Passed, 2, 3), Change::Pending);
        assert_eq!(health.record(Checked::Passed, 2, 3), Change::Healthy);
    }

    #[test]
    fn a_failure_for_good_needs_no_second() {
        let health = ActiveHealth::default();
        health.expect_checks();
        health.record(Checked::Passed, 2, 3);

        assert_eq!(
            health.record(Checked::FailedForGood, 2, 3),
            Change::Unhealthy
        );
    }

    #[test]
    fn a_degraded_answer_is_a_change() {
        let health = ActiveHealth::default();
        health.expect_checks();
        health.record(Checked::Passed, 2, 3);

        assert_eq!(
            health.record(Checked::PassedDegraded, 2, 3),
            Change::Healthy
        );
        assert!(health.is_degraded());
        assert_eq!(health.record(Checked::Passed, 2, 3), Change::Healthy);
        assert!(!health.is_degraded());
    }
}
