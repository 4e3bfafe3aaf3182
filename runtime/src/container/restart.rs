//! When an ended container is started again.
//!
//! The first restart after a stable run is immediate, so a killed sidecar is back before anybody notices; one
//! that keeps ending waits ever longer. Shims ask; times are arguments.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A run as long as this forgets the ends before it.
const STABLE_RUN: Duration = Duration::from_secs(10);

/// Which ends are followed by a new start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RestartPolicy {
    #[default]
    Never,
    OnFailure,
    Always,
}

impl RestartPolicy {
    fn applies_to(self, exit_code: i32) -> bool {
        match self {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Always => true,
        }
    }
}

/// The pauses between the starts of one container.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    ends_in_a_row: u32,
}

impl Backoff {
    /// How long to wait before the next start; `None` where there is none.
    pub(crate) fn after_end(
        &mut self,
        policy: RestartPolicy,
        exit_code: i32,
        ran_for: Duration,
    ) -> Option<Duration> {
        if !policy.applies_to(exit_code) {
            return None;
        }
        if ran_for >= STABLE_RUN {
            self.ends_in_a_row = 0;
        }
        let pause = match self.ends_in_a_row {
            0 => Duration::ZERO,
            ends => FIRST_PAUSE
                .saturating_mul(1_u32.checked_shl(ends - 1).unwrap_or(u32::MAX))
                .min(LONGEST_PAUSE),
        };
        self.ends_in_a_row = self.ends_in_a_row.saturating_add(1);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_restart_is_immediate_and_the_next_ones_wait_longer() {
        let mut backoff = Backoff::default();
        let mut next = || {
            backoff
                .after_end(RestartPolicy::Always, 137, SHORT)
                .expect("a restart")
        };

        let pauses: Vec<u128> = (0..5).map(|_| next().as_millis()).collect();

        assert_eq!(pauses, vec![0, 10, 20, 40, 80]);
    }

    #[test]
    fn pauses_stop_growing() {
        let mut backoff = Backoff::default();
        let last = (0..100)
            .filter_map(|_| backoff.after_end(RestartPolicy::Always, 1, SHORT))
            .last();

        assert_eq!(last, Some(LONGEST_PAUSE));
    }

    #[test]
    fn a_stable_run_is_followed_by_an_immediate_restart() {
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.after_end(RestartPolicy::Always, 1, SHORT);
        }

        let pause = backoff.after_end(RestartPolicy::Always, 1, STABLE_RUN);

        assert_eq!(pause, Some(Duration::ZERO));
    }

    #[test]
    fn success_is_final_where_only_failures_are_restarted() {
        let mut backoff = Backoff::default();

        assert_eq!(backoff.after_end(RestartPolicy::OnFailure, 0, SHORT), None);
        assert!(
            backoff
                .after_end(RestartPolicy::OnFailure, 1, SHORT)
                .is_some()
        );
        assert_eq!(backoff.after_end(RestartPolicy::Never, 1, SHORT), None);
    }
}
