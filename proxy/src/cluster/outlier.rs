//! Outlier detection: takes an endpoint out of the balancing for what it has answered.
//!
//! Who carries out a request records its outcome once; failures in a row are judged there and then, rates by
//! [`rates`] once an interval. All state is atomic: workers record at the same time.

pub mod rates;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::rates::Rate;
use crate::config::cluster::outlier::{Enforcing, OutlierDetection};
use crate::config::percent::Percent;

/// How a request to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a response that is no server error.
    Success,
    /// With 502, 503 or 504.
    GatewayError,
    /// With any other server error.
    ServerError,
    /// Without a response: no connection, a reset, a time-out.
    LocalOriginFailure,
}

impl Outcome {
    /// That of a response.
    pub fn of_status(status: http::StatusCode) -> Self {
        match status.as_u16() {
            502..=504 => Outcome::GatewayError,
            500..=599 => Outcome::ServerError,
            _ => Outcome::Success,
        }
    }
}

/// What finds outliers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// Server errors in a row.
    Consecutive5xx,
    /// Gateway errors in a row.
    ConsecutiveGatewayFailure,
    /// Failed connections in a row.
    ConsecutiveLocalOriginFailure,
    /// A success rate far below the others'.
    SuccessRate,
    /// The same of connecting.
    LocalOriginSuccessRate,
    /// Too large a share of failures.
    FailurePercentage,
    /// The same of connecting.
    LocalOriginFailurePercentage,
}

impl Detector {
    /// All of them.
    pub const ALL: [Detector; 7] = [
        Detector::Consecutive5xx,
        Detector::ConsecutiveGatewayFailure,
        Detector::ConsecutiveLocalOriginFailure,
        Detector::SuccessRate,
        Detector::LocalOriginSuccessRate,
        Detector::FailurePercentage,
        Detector::LocalOriginFailurePercentage,
    ];

    /// As Envoy's statistics call it.
    pub fn name(self) -> &'static str {
        match self {
            Detector::Consecutive5xx => "consecutive_5xx",
            Detector::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Detector::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Detector::SuccessRate => "success_rate",
            Detector::LocalOriginSuccessRate => "local_origin_success_rate",
            Detector::FailurePercentage => "failure_percentage",
            Detector::LocalOriginFailurePercentage => "local_origin_failure_percentage",
        }
    }

    /// How often it is acted upon.
    pub fn enforcing(self, config: &Enforcing) -> Percent {
        match self {
            Detector::Consecutive5xx => config.consecutive_5xx,
            Detector::ConsecutiveGatewayFailure => config.gateway_failure,
            Detector::ConsecutiveLocalOriginFailure => config.local_origin_failure,
            Detector::SuccessRate => config.success_rate,
            Detector::LocalOriginSuccessRate => config.local_success_rate,
            Detector::FailurePercentage => config.failure_percentage,
            Detector::LocalOriginFailurePercentage => config.local_failure_percentage,
        }
    }
}

/// What is remembered of one endpoint.
#[derive(Debug, Default)]
pub struct Outlier {
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// What it answers.
    pub external: Rate,
    /// Whether it can be connected to; counted only where that is counted apart.
    pub local: Rate,
    /// How often in a row; forgotten one at a time.
    ejections: AtomicU32,
    /// On the scale of [`millis`]; 0: never.
    ejected_until: AtomicU64,
    /// How often in a row it has asked to be spared; forgotten one at a time.
    degradations: AtomicU32,
    /// On the scale of [`millis`]; 0: never.
    degraded_until: AtomicU64,
}

impl Outlier {
    /// Whether it is out now.
    pub fn is_ejected(&self, now: Instant) -> bool {
        millis(now) < self.ejected_until.load(Ordering::Relaxed)
    }

    /// Until when it is out, or was the last time; on the scale of [`millis`].
    pub fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Ordering::Relaxed)
    }

    /// How often in a row it has been ejected.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// A request has reached it, whatever becomes of it.
    pub fn reached(&self, config: &OutlierDetection) {
        if config.split_local_origin {
            self.local.count(true);
            forget(&self.local_failures);
        }
    }

    /// Counts an outcome; says which test of failures in a row has found enough of them.
    pub fn record(&self, outcome: Outcome, config: &OutlierDetection) -> [Option<Detector>; 2] {
        if outcome == Outcome::LocalOriginFailure && config.split_local_origin {
            self.local.count(false);
            let limit = config.consecutive_local_origin_failure;
            let is_found = is_reached(&self.local_failures, limit);
            return [
                is_found.then_some(Detector::ConsecutiveLocalOriginFailure),
                None,
            ];
        }
        if outcome != Outcome::LocalOriginFailure {
            self.reached(config);
        }
        self.external.count(outcome == Outcome::Success);
        match outcome {
            Outcome::Success => {
                forget(&self.server_errors);
                forget(&self.gateway_errors);
                [None, None]
            }
            Outcome::ServerError => {
                forget(&self.gateway_errors);
                [self.count_server_error(config), None]
            }
            // Envoy: unless they are counted apart, local failures are as a 503.
            Outcome::GatewayError | Outcome::LocalOriginFailure => {
                let limit = config.consecutive_gateway_failure;
                let is_found = is_reached(&self.gateway_errors, limit);
                [
                    is_found.then_some(Detector::ConsecutiveGatewayFailure),
                    self.count_server_error(config),
                ]
            }
        }
    }

    /// Takes it out, for so much longer than it would be. Returns until when, on the scale of [`millis`].
    pub fn eject(&self, config: &OutlierDetection, jitter: Duration, now: Instant) -> u64 {
        let until = prolong((&self.ejections, &self.ejected_until), config, jitter, now);
        self.forget_failures();
        until
    }

    /// Whether it has asked to be spared, and is.
    pub fn is_degraded(&self, now: Instant) -> bool {
        millis(now) < self.degraded_until()
    }

    /// Until when it is spared, or was the last time; on the scale of [`millis`].
    pub fn degraded_until(&self) -> u64 {
        self.degraded_until.load(Ordering::Relaxed)
    }

    /// Spares it for as long as it would be taken out.
    pub fn degrade(&self, config: &OutlierDetection, jitter: Duration, now: Instant) {
        let kept = (&self.degradations, &self.degraded_until);
        prolong(kept, config, jitter, now);
    }

    /// Takes it in again before its time.
    pub fn return_now(&self) {
        self.ejected_until.store(0, Ordering::Relaxed);
        self.forget_failures();
    }

    fn count_server_error(&self, config: &OutlierDetection) -> Option<Detector> {
        is_reached(&self.server_errors, config.consecutive_5xx).then_some(Detector::Consecutive5xx)
    }

    fn forget_failures(&self) {
        forget(&self.server_errors);
        forget(&self.gateway_errors);
        forget(&self.local_failures);
    }
}

/// One more time in a row, each longer than the one before. Returns until when, on the scale of [`millis`].
fn prolong(
    (times, until): (&AtomicU32, &AtomicU64),
    config: &OutlierDetection,
    jitter: Duration,
    now: Instant,
) -> u64 {
    let now = millis(now);
    let forgotten = forgotten_since(until.load(Ordering::Relaxed), now, config.interval);
    let before = times.load(Ordering::Relaxed).saturating_sub(forgotten);
    let count = before.saturating_add(1);
    times.store(count, Ordering::Relaxed);
    let time = config
        .base_ejection_time
        .saturating_mul(count)
        .min(config.max_ejection_time.max(config.base_ejection_time))
        .saturating_add(jitter);
    let end = now.saturating_add(whole_millis(time));
    until.store(end, Ordering::Relaxed);
    end
}

fn forget(counter: &AtomicU32) {
    // Loads first: on the common path nothing is written, and the cache line stays shared.
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Counts one more; at the limit, counts anew. A limit of 0 is never reached.
fn is_reached(counter: &AtomicU32, limit: u32) -> bool {
    let count = counter.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let is_reached = limit != 0 && count >= limit;
    if is_reached {
        counter.store(0, Ordering::Relaxed);
    }
    is_reached
}

/// One ejection is forgotten for each interval since the last one ended.
fn forgotten_since(returned: u64, now: u64, interval: Duration) -> u32 {
    let healthy = now.saturating_sub(returned);
    let intervals = healthy / whole_millis(interval).max(1);
    u32::try_from(intervals).unwrap_or(u32::MAX)
}

/// Milliseconds since shortly before the first use; never 0.
pub fn millis(now: Instant) -> u64 {
    whole_millis(now.saturating_duration_since(*start())) + 1
}

/// The other way round.
pub fn instant(millis: u64) -> Instant {
    *start() + Duration::from_millis(millis.saturating_sub(1))
}

fn start() -> &'static Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    &START
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ejecting_after(consecutive_5xx: u32) -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx,
            ..OutlierDetection::default()
        }
    }

    fn found(outlier: &Outlier, outcome: Outcome, config: &OutlierDetection) -> Vec<Detector> {
        outlier
            .record(outcome, config)
            .into_iter()
            .flatten()
            .collect()
    }

    #[test]
    fn failures_in_a_row_are_found_and_a_success_ends_the_row() {
        let config = ejecting_after(3);
        let outlier = Outlier::default();

        for outcome in [
            Outcome::ServerError,
            Outcome::GatewayError,
            Outcome::Success,
        ] {
            assert!(found(&outlier, outcome, &config).is_empty());
        }
        for _ in 0..2 {
            assert!(found(&outlier, Outcome::ServerError, &config).is_empty());
        }

        assert_eq!(
            found(&outlier, Outcome::LocalOriginFailure, &config),
            [Detector::Consecutive5xx]
        );
    }

    #[test]
    fn other_server_errors_end_a_row_of_gateway_errors() {
        let config = OutlierDetection {
            consecutive_gateway_failure: 2,
            ..ejecting_after(0)
        };
        let outlier = Outlier::default();

        found(&outlier, Outcome::GatewayError, &config);
        found(&outlier, Outcome::ServerError, &config);
        assert!(found(&outlier, Outcome::GatewayError, &config).is_empty());

        assert_eq!(
            found(&outlier, Outcome::GatewayError, &config),
            [Detector::ConsecutiveGatewayFailure]
        );
    }

    #[test]
    fn each_ejection_in_a_row_is_longer_up_to_the_longest() {
        let config = OutlierDetection {
            max_ejection_time: secs(70),
            interval: secs(3600),
            ..OutlierDetection::default()
        };
        let outlier = Outlier::default();
        let mut now = Instant::now() + secs(1);

        for length in [30, 60, 70, 70] {
            outlier.eject(&config, Duration::ZERO, now);
            assert!(outlier.is_ejected(now + secs(length) - Duration::from_millis(2)));
            now += secs(length);
            assert!(!outlier.is_ejected(now));
        }
    }

    #[test]
    fn jitter_is_added_even_to_the_longest() {
        let config = OutlierDetection::default();
        let outlier = Outlier::default();
        let now = Instant::now() + secs(1);

        outlier.eject(&config, secs(7), now);

        assert!(outlier.is_ejected(now + secs(36)));
        assert!(!outlier.is_ejected(now + secs(37)));
    }

    #[test]
    fn ejections_are_forgotten_one_for_each_interval() {
        let config = OutlierDetection::default();
        let outlier = Outlier::default();
        let start = Instant::now() + secs(1);
        outlier.eject(&config, Duration::ZERO, start);
        outlier.eject(&config, Duration::ZERO, start + secs(30));
        assert_eq!(outlier.ejections(), 2);

        outlier.eject(&config, Duration::ZERO, start + secs(30 + 60 + 10));

        assert_eq!(outlier.ejections(), 2);
    }

    #[test]
    fn local_failures_are_counted_apart_where_asked() {
        let config = OutlierDetection {
            consecutive_local_origin_failure: 2,
            split_local_origin: true,
            ..ejecting_after(1)
        };
        let outlier = Outlier::default();

        assert!(found(&outlier, Outcome::LocalOriginFailure, &config).is_empty());
        // A server error is an answer: connecting went well.
        assert_eq!(
            found(&outlier, Outcome::ServerError, &config),
            [Detector::Consecutive5xx]
        );
        assert!(found(&outlier, Outcome::LocalOriginFailure, &config).is_empty());
        assert_eq!(
            found(&outlier, Outcome::LocalOriginFailure, &config),
            [Detector::ConsecutiveLocalOriginFailure]
        );
    }

    #[test]
    fn what_is_lost_after_its_endpoint_was_reached_is_no_failure_in_a_row() {
        let config = OutlierDetection {
            consecutive_local_origin_failure: 2,
            split_local_origin: true,
            ..ejecting_after(1)
        };
        let outlier = Outlier::default();

        for _ in 0..3 {
            outlier.reached(&config);
            assert!(found(&outlier, Outcome::LocalOriginFailure, &config).is_empty());
        }
    }
}
