//! Outlier detection: takes an endpoint out of the balancing after failures in a row.
//!
//! Who carries out a request records its outcome once; `cluster` asks whether an endpoint is ejected
//! when it picks. All state is atomic: workers record at the same time.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::cluster::OutlierDetection;

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

/// What is remembered of one endpoint.
#[derive(Debug, Default)]
pub struct Outlier {
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// How often in a row; forgotten one at a time.
    ejections: AtomicU32,
    /// On the scale of [`millis`]; 0: never.
    ejected_until: AtomicU64,
}

impl Outlier {
    /// Whether it is out now.
    pub fn is_ejected(&self, now: Instant) -> bool {
        millis(now) < self.ejected_until.load(Ordering::Relaxed)
    }

    /// How often in a row it has been ejected.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Counts an outcome; says whether there are now enough failures in a row to eject.
    pub fn record(&self, outcome: Outcome, config: &OutlierDetection) -> bool {
        match outcome {
            Outcome::Success => {
                self.forget();
                false
            }
            Outcome::ServerError => {
                self.gateway_errors.store(0, Ordering::Relaxed);
                self.local_failures.store(0, Ordering::Relaxed);
                is_reached(&self.server_errors, config.consecutive_5xx)
            }
            Outcome::GatewayError => {
                self.local_failures.store(0, Ordering::Relaxed);
                self.count_gateway_error(config)
            }
            Outcome::LocalOriginFailure if config.split_local_origin => is_reached(
                &self.local_failures,
                config.consecutive_local_origin_failure,
            ),
            // Envoy: unless they are counted apart, local failures are as a 503.
            Outcome::LocalOriginFailure => self.count_gateway_error(config),
        }
    }

    /// Takes it out. Returns until when, on the scale of [`millis`].
    pub fn eject(&self, config: &OutlierDetection, now: Instant) -> u64 {
        let now = millis(now);
        let returned = self.ejected_until.load(Ordering::Relaxed);
        let forgotten = forgotten_since(returned, now, config.interval);
        let ejections = self.ejections().saturating_sub(forgotten).saturating_add(1);
        self.ejections.store(ejections, Ordering::Relaxed);

        let time = config
            .base_ejection_time
            .saturating_mul(ejections)
            .min(config.max_ejection_time.max(config.base_ejection_time));
        let until = now.saturating_add(whole_millis(time));
        self.ejected_until.store(until, Ordering::Relaxed);
        self.forget();
        until
    }

    fn count_gateway_error(&self, config: &OutlierDetection) -> bool {
        let by_gateway = is_reached(&self.gateway_errors, config.consecutive_gateway_failure);
        let by_server = is_reached(&self.server_errors, config.consecutive_5xx);
        by_gateway || by_server
    }

    fn forget(&self) {
        // Loads first: on the common path nothing is written, and the cache line stays shared.
        for counter in [
            &self.server_errors,
            &self.gateway_errors,
            &self.local_failures,
        ] {
            if counter.load(Ordering::Relaxed) != 0 {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// Counts one more; a limit of 0 is never reached.
fn is_reached(counter: &AtomicU32, limit: u32) -> bool {
    let count = counter.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    limit != 0 && count >= limit
}

/// One ejection is forgotten for each interval since the last one ended.
fn forgotten_since(returned: u64, now: u64, interval: Duration) -> u32 {
    let healthy = now.saturating_sub(returned);
    let intervals = healthy / whole_millis(interval).max(1);
    u32::try_from(intervals).unwrap_or(u32::MAX)
}

/// Milliseconds since shortly before the first use; never 0.
pub fn millis(now: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    whole_millis(now.saturating_duration_since(*START)) + 1
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn ejecting_after(failures: u32) -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: failures,
            ..OutlierDetection::default()
        }
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let config = ejecting_after(3);
        let outlier = Outlier::default();

        assert!(!outlier.record(Outcome::ServerError, &config));
        assert!(!outlier.record(Outcome::ServerError, &config));
        assert!(!outlier.record(Outcome::Success, &config));
        assert!(!outlier.record(Outcome::ServerError, &config));
        assert!(!outlier.record(Outcome::LocalOriginFailure, &config));
        assert!(outlier.record(Outcome::GatewayError, &config));
    }

    #[test]
    fn an_endpoint_returns_after_its_ejection_ends() {
        let start = Instant::now() + secs(1);
        let outlier = Outlier::default();

        outlier.eject(&ejecting_after(3), start);

        assert!(outlier.is_ejected(start + secs(29)));
        assert!(!outlier.is_ejected(start + secs(30)));
    }

    #[test]
    fn each_ejection_in_a_row_is_longer_up_to_the_longest() {
        let config = ejecting_after(1);
        let outlier = Outlier::default();
        let mut now = Instant::now() + secs(1);
        let mut times = vec![];
        for _ in 0..12 {
            let until = outlier.eject(&config, now);
            times.push((until - millis(now)) / 1000);
            now += secs(times[times.len() - 1]);
        }

        assert_eq!(times[..3], [30, 60, 90]);
        assert_eq!(times[11], 300);
    }

    #[test]
    fn ejections_are_forgotten_one_an_interval() {
        let config = ejecting_after(1);
        let outlier = Outlier::default();
        let start = Instant::now() + secs(1);
        outlier.eject(&config, start);
        outlier.eject(&config, start + secs(30));
        assert_eq!(outlier.ejections(), 2);

        outlier.eject(&config, start + secs(30 + 60 + 10));

        assert_eq!(outlier.ejections(), 2);
    }

    #[test]
    fn local_failures_are_counted_apart_where_asked() {
        let config = OutlierDetection {
            consecutive_5xx: 1,
            consecutive_local_origin_failure: 2,
            split_local_origin: true,
            ..OutlierDetection::default()
        };
        let outlier = Outlier::default();

        assert!(!outlier.record(Outcome::LocalOriginFailure, &config));
        assert!(outlier.record(Outcome::LocalOriginFailure, &config));
    }
}
