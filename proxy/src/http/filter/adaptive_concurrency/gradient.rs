//! Envoy's gradient controller: the number of requests follows the latency.
//!
//! The latency without a load is measured now and then, with few requests at a time. In between, each interval's
//! latency is compared with it: where it has grown, the number shrinks; where it has not, the number grows by its
//! square root. Nothing here has a timer: what is due is done when a request comes or goes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::RngExt;

use super::Stats;
use crate::config::filter::adaptive_concurrency::{AdaptiveConcurrencyConfig, MinRtt};
use crate::random;

/// The number at most doubles, or halves, at a time.
const GRADIENT: std::ops::RangeInclusive<f64> = 0.5..=2.0;
/// After so many intervals at the fewest requests, the latency is measured anew: it may just be what it is now.
const MAX_AT_MIN: u32 = 5;
/// No more latencies are kept of an interval.
const MAX_SAMPLES: usize = 10_000;

/// Finds the number of requests.
pub(super) struct Gradient {
    config: AdaptiveConcurrencyConfig,
    stats: Stats,
    limit: AtomicU32,
    outstanding: AtomicU32,
    measured: Mutex<Measured>,
}

struct Measured {
    samples: Vec<Duration>,
    min_rtt: Option<Duration>,
    /// When the interval is over.
    update_at: Instant,
    /// When the latency without a load is measured next; nothing while it is.
    measure_at: Option<Instant>,
    /// Requests that began before are no sample.
    since: Instant,
    at_min: u32,
}

impl Gradient {
    pub(super) fn new(config: AdaptiveConcurrencyConfig, stats: Stats, now: Instant) -> Self {
        let (limit, min_rtt, measure_at) = match config.min_rtt {
            MinRtt::Fixed(min_rtt) => (config.min_limit, Some(min_rtt), Some(now)),
            MinRtt::Measured { concurrency, .. } => (concurrency, None, None),
        };
        let gradient = Gradient {
            limit: AtomicU32::new(limit),
            outstanding: AtomicU32::new(0),
            measured: Mutex::new(Measured {
                samples: vec![],
                min_rtt,
                update_at: now + config.update_interval,
                measure_at,
                since: now,
                at_min: 0,
            }),
            config,
            stats,
        };
        gradient.show();
        gradient
    }

    /// Counts a request in, where it is not one too many.
    pub(super) fn enter(&self, now: Instant) -> bool {
        self.keep_up(&mut self.measured.lock(), now);
        let limit = self.limit.load(Ordering::Relaxed);
        let below = |current: u32| (current < limit).then_some(current + 1);
        let entered = self
            .outstanding
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below);
        if entered.is_err() {
            self.stats.rq_blocked.increment();
        }
        entered.is_ok()
    }

    /// Counts a request out.
    pub(super) fn leave(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request has ended well, after so long.
    pub(super) fn sample(&self, latency: Duration, now: Instant) {
        let mut measured = self.measured.lock();
        if now - latency >= measured.since && measured.samples.len() < MAX_SAMPLES {
            measured.samples.push(latency);
        }
        self.keep_up(&mut measured, now);
    }

    /// Does what is due.
    fn keep_up(&self, measured: &mut Measured, now: Instant) {
        match self.config.min_rtt {
            MinRtt::Measured {
                requests,
                interval,
                jitter,
                ..
            } if measured.measure_at.is_none() => {
                if measured.samples.len() >= requests as usize {
                    self.measured_min(measured, interval, jitter, now);
                }
                return;
            }
            MinRtt::Measured { concurrency, .. } => {
                if measured.measure_at.is_some_and(|at| now >= at) {
                    return self.measure(measured, concurrency, now);
                }
            }
            MinRtt::Fixed(_) => {}
        }
        if now >= measured.update_at {
            self.update(measured, now);
        }
    }

    /// Begins to measure the latency without a load.
    fn measure(&self, measured: &mut Measured, concurrency: u32, now: Instant) {
        measured.measure_at = None;
        measured.samples.clear();
        measured.since = now;
        measured.at_min = 0;
        self.limit.store(concurrency, Ordering::Relaxed);
        self.stats.min_rtt_calculation_active.set(1);
        self.show();
    }

    fn measured_min(&self, measured: &mut Measured, interval: Duration, jitter: f64, now: Instant) {
        let latency = percentile(&mut measured.samples, self.config.percentile);
        measured.min_rtt = Some(latency);
        let later = random::with(|random| random.random_range(0.0..=1.0)) * jitter;
        measured.measure_at = Some(now + interval + interval.mul_f64(later));
        measured.update_at = now + self.config.update_interval;
        self.stats.min_rtt_calculation_active.set(0);
        self.stats.min_rtt_msecs.set(millis(latency));
        self.show();
    }

    /// Works the number out anew, by the latencies of an interval.
    fn update(&self, measured: &mut Measured, now: Instant) {
        measured.update_at = now + self.config.update_interval;
        let (Some(min_rtt), false) = (measured.min_rtt, measured.samples.is_empty()) else {
            return;
        };
        let latency = percentile(&mut measured.samples, self.config.percentile);
        let limit = self.limit.load(Ordering::Relaxed);
        let (next, gradient) = next_limit(&self.config, limit, min_rtt, latency);
        self.limit.store(next, Ordering::Relaxed);
        self.stats.sample_rtt_msecs.set(millis(latency));
        self.stats.gradient.set(whole(gradient * 1000.0));
        self.show();
        measured.at_min = match next <= self.config.min_limit {
            true => measured.at_min + 1,
            false => 0,
        };
        if let (MAX_AT_MIN.., MinRtt::Measured { .. }) = (measured.at_min, self.config.min_rtt) {
            measured.measure_at = Some(now);
        }
    }

    fn show(&self) {
        let limit = self.limit.load(Ordering::Relaxed);
        self.stats.concurrency_limit.set(limit.into());
    }
}

/// The next number of requests, and the gradient that it comes from.
fn next_limit(
    config: &AdaptiveConcurrencyConfig,
    limit: u32,
    min_rtt: Duration,
    latency: Duration,
) -> (u32, f64) {
    let buffered = min_rtt.as_secs_f64() * (1.0 + config.buffer);
    let gradient = buffered / latency.as_secs_f64().max(f64::MIN_POSITIVE);
    let gradient = gradient.clamp(*GRADIENT.start(), *GRADIENT.end());
    let target = f64::from(limit) * gradient;
    let next = u32::try_from(whole(target + target.sqrt())).unwrap_or(u32::MAX);
    (next.clamp(config.min_limit, config.max_limit), gradient)
}

/// Takes the samples.
fn percentile(samples: &mut Vec<Duration>, share: f64) -> Duration {
    let mut samples = std::mem::take(samples);
    samples.sort_unstable();
    #[allow(clippy::cast_precision_loss, reason = "they are few")]
    let position = usize::try_from(whole(samples.len() as f64 * share)).unwrap_or(0);
    let last = samples.len().saturating_sub(1);
    samples.get(position.min(last)).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "conversions of floats saturate, and nothing here is negative"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::counters::Counters;

    fn config(min_rtt: MinRtt) -> AdaptiveConcurrencyConfig {
        AdaptiveConcurrencyConfig {
            percentile: 0.5,
            max_limit: 100,
            min_limit: 3,
            update_interval: Duration::from_millis(100),
            min_rtt,
            buffer: 0.25,
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            live: Default::default(),
        }
    }

    fn measured() -> MinRtt {
        MinRtt::Measured {
            interval: Duration::from_secs(60),
            jitter: 0.0,
            requests: 5,
            concurrency: 3,
        }
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_latency_that_has_not_grown_lets_more_through_and_one_that_has_fewer() {
        let config = config(MinRtt::Fixed(ms(10)));

        // 12.5 ms are within the buffer: by the square root.
        assert_eq!(
            next_limit(&config, 16, ms(10), Duration::from_micros(12_500)).0,
            20
        );
        assert_eq!(next_limit(&config, 16, ms(10), ms(1000)).0, 10);
        assert_eq!(next_limit(&config, 100, ms(10), ms(1)).0, 100);
        assert_eq!(next_limit(&config, 3, ms(10), ms(1000)).0, 3);
    }

    #[test]
    fn few_requests_are_let_through_while_the_latency_is_measured() {
        let begun = Instant::now();
        let stats = Stats::new(&Counters::default(), "a.");
        let gradient = Gradient::new(config(measured()), stats, begun);

        let entered = (0..5).filter(|_| gradient.enter(begun)).count();
        assert_eq!(entered, 3);
        assert_eq!(gradient.stats.rq_blocked.value(), 2);

        for step in 1..=5 {
            gradient.sample(ms(10), begun + ms(10 * step));
        }
        assert_eq!(gradient.stats.min_rtt_msecs.value(), 10);

        // An interval with the same latency: 3 × 1.25 and its square root.
        gradient.sample(ms(10), begun + ms(100));
        gradient.sample(ms(10), begun + ms(160));
        assert_eq!(gradient.stats.concurrency_limit.value(), 5);
    }

    #[test]
    fn the_latency_is_measured_anew_after_the_interval() {
        let begun = Instant::now();
        let stats = Stats::new(&Counters::default(), "a.");
        let gradient = Gradient::new(config(measured()), stats, begun);
        for step in 1..=5 {
            gradient.sample(ms(10), begun + ms(10 * step));
        }

        assert!(gradient.enter(begun + Duration::from_secs(61)));

        assert_eq!(gradient.stats.min_rtt_calculation_active.value(), 1);
        assert_eq!(gradient.stats.concurrency_limit.value(), 3);
    }

    #[test]
    fn the_middle_of_the_samples_counts() {
        let mut samples = vec![ms(5), ms(1), ms(9)];

        assert_eq!(percentile(&mut samples, 0.5), ms(5));
        assert!(samples.is_empty());
        assert_eq!(percentile(&mut samples, 0.5), Duration::ZERO);
    }
}
