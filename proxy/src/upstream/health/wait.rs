//! How long to wait until the next health check. Pure.

use std::time::Duration;

use rand::Rng;

use crate::config::health_check::Intervals;
use crate::random;

/// What the wait depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    /// Whether the cluster has had requests since the last check.
    pub(super) has_traffic: bool,
    /// Whether the endpoint is healthy.
    pub(super) is_healthy: bool,
    /// How the last check went.
    pub(super) last: Last,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// As the endpoint is.
    Confirming,
    /// Not so, and not often enough yet.
    Contrary,
}

impl Wait {
    pub(super) fn until_next(self, intervals: &Intervals, random: &mut impl Rng) -> Duration {
        let base = self.base(intervals);
        let share = base.mul_f64(f64::from(intervals.jitter_percent.min(100)) / 100.0);
        base.saturating_add(drawn(share, random))
            .saturating_add(drawn(intervals.jitter, random))
    }

    /// Envoy's order: edges first, then a cluster without traffic, then health.
    fn base(self, intervals: &Intervals) -> Duration {
        match (self.last, self.is_healthy) {
            (Last::Contrary, true) => intervals.unhealthy_edge,
            (Last::Contrary, false) => intervals.healthy_edge,
            (Last::Confirming, true) if !self.has_traffic => {
                intervals.no_traffic_healthy.unwrap_or(intervals.no_traffic)
            }
            (Last::Confirming, false) if !self.has_traffic => intervals.no_traffic,
            (Last::Confirming, true) => intervals.usual,
            (Last::Confirming, false) => intervals.unhealthy,
        }
    }
}

/// Before the first check.
pub(super) fn initial(intervals: &Intervals, random: &mut impl Rng) -> Duration {
    drawn(intervals.initial_jitter, random)
}

fn drawn(longest: Duration, random: &mut impl Rng) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random::below(random, nanos))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn intervals() -> Intervals {
        let secs = Duration::from_secs;
        Intervals {
            usual: secs(5),
            jitter: Duration::ZERO,
            jitter_percent: 0,
            initial_jitter: Duration::ZERO,
            no_traffic: secs(60),
            no_traffic_healthy: None,
            unhealthy: secs(2),
            unhealthy_edge: secs(1),
            healthy_edge: secs(3),
        }
    }

    fn seconds(has_traffic: bool, is_healthy: bool, last: Last) -> u64 {
        let wait = Wait {
            has_traffic,
            is_healthy,
            last,
        };
        let mut random = SmallRng::seed_from_u64(1);
        wait.until_next(&intervals(), &mut random).as_secs()
    }

    #[test]
    fn each_state_has_an_interval_of_its_own() {
        assert_eq!(seconds(true, true, Last::Confirming), 5);
        assert_eq!(seconds(true, false, Last::Confirming), 2);
        assert_eq!(seconds(false, true, Last::Confirming), 60);
        assert_eq!(seconds(false, false, Last::Confirming), 60);
        assert_eq!(seconds(false, true, Last::Contrary), 1);
        assert_eq!(seconds(true, false, Last::Contrary), 3);
    }

    #[test]
    fn jitter_is_added_and_never_more_than_configured() {
        let jittered = Intervals {
            jitter: Duration::from_secs(1),
            jitter_percent: 20,
            ..intervals()
        };
        let wait = Wait {
            has_traffic: true,
            is_healthy: true,
            last: Last::Confirming,
        };
        let mut random = SmallRng::seed_from_u64(1);

        let waits: Vec<_> = (0..1000)
            .map(|_| wait.until_next(&jittered, &mut random))
            .collect();

        assert!(
            waits
                .iter()
                .all(|wait| (5.0..7.0).contains(&wait.as_secs_f64()))
        );
        assert!(waits.iter().any(|wait| wait.as_secs_f64() > 6.0));
    }
}
