//! When a probe is made, and how often it must say the same.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// A probe's times with Kubernetes' defaults.
pub(super) struct Times {
    pub(super) initial_delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) success_threshold: u32,
    pub(super) failure_threshold: u32,
}

impl Times {
    pub(super) fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u32| {
            let value = value.and_then(|value| u32::try_from(value).ok());
            Duration::from_secs(value.unwrap_or(default).into())
        };
        let count = |value: Option<i32>, default: u32| {
            let value = value.and_then(|value| u32::try_from(value).ok());
            value.unwrap_or(default).max(1)
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_as_in_kubernetes() {
        let times = Times::of(&Probe::default());

        assert_eq!(times.initial_delay, Duration::ZERO);
        assert_eq!(times.period, Duration::from_secs(10));
        assert_eq!(times.timeout, Duration::from_secs(1));
        assert_eq!((times.success_threshold, times.failure_threshold), (1, 3));
    }

    #[test]
    fn nonsense_becomes_the_least_that_makes_sense() {
        let times = Times::of(&Probe {
            period_seconds: Some(0),
            timeout_seconds: Some(-5),
            failure_threshold: Some(0),
            ..Probe::default()
        });

        assert_eq!(times.period, Duration::from_secs(1));
        assert_eq!(times.timeout, Duration::from_secs(1));
        assert_eq!(times.failure_threshold, 1);
    }
}
