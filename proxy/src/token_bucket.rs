//! Token buckets: a rate with bursts, without a lock and without a timer.
//!
//! What is kept is when the bucket was last empty, so that its content is that time's worth of tokens: the time
//! passes by itself. Envoy's buckets work alike.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::filter::local_ratelimit::Bucket;

/// The beginning of time, for instants as numbers.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Tokens to be taken.
#[derive(Debug)]
pub struct TokenBucket {
    max: f64,
    per_second: f64,
    /// When it was empty, in seconds since [`ORIGIN`], as the bits of a float; may be before it.
    empty_at: AtomicU64,
}

impl TokenBucket {
    /// A full one.
    pub fn new(config: Bucket, now: Instant) -> Self {
        let interval = config.fill_interval.as_secs_f64().max(f64::MIN_POSITIVE);
        let max = f64::from(config.max_tokens);
        let per_second = f64::from(config.tokens_per_fill) / interval;
        let empty_at = seconds(now) - max / per_second;
        TokenBucket {
            max,
            per_second,
            empty_at: AtomicU64::new(empty_at.to_bits()),
        }
    }

    /// Takes one, where there is one.
    pub fn take(&self, now: Instant) -> bool {
        self.take_several(1.0, now)
    }

    /// Takes so many, or none.
    pub fn take_several(&self, count: f64, now: Instant) -> bool {
        let now = seconds(now);
        let taken = |bits: u64| {
            let empty_at = self.since(f64::from_bits(bits), now);
            let tokens = (now - empty_at) * self.per_second;
            // A hair less than one is one: the sum of fills is never exact.
            (tokens + 1e-9 >= count).then(|| (empty_at + count / self.per_second).to_bits())
        };
        self.empty_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }

    /// Gives so many back, as far as there is room.
    pub fn give_back(&self, count: f64, now: Instant) {
        let now = seconds(now);
        let given = |bits: u64| {
            let empty_at = self.since(f64::from_bits(bits), now);
            Some(
                self.since(empty_at - count / self.per_second, now)
                    .to_bits(),
            )
        };
        // It is always given.
        let _ = self
            .empty_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, given);
    }

    /// How many come in a second.
    pub fn rate(&self) -> f64 {
        self.per_second
    }

    /// How many there are.
    pub fn left(&self, now: Instant) -> f64 {
        let now = seconds(now);
        let empty_at = self.since(f64::from_bits(self.empty_at.load(Ordering::Relaxed)), now);
        ((now - empty_at) * self.per_second).max(0.0)
    }

    /// How many there can be.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// In how long there will be one.
    pub fn next(&self, now: Instant) -> Duration {
        let missing = (1.0 - self.left(now)).max(0.0);
        Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX)
    }

    /// In how long it will be full.
    pub fn full(&self, now: Instant) -> Duration {
        let missing = (self.max - self.left(now)).max(0.0);
        Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX)
    }

    /// When it was empty, were it filled since and had not overflowed.
    fn since(&self, empty_at: f64, now: f64) -> f64 {
        empty_at.max(now - self.max / self.per_second)
    }
}

fn seconds(at: Instant) -> f64 {
    at.saturating_duration_since(*ORIGIN).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(now: Instant) -> TokenBucket {
        let config = Bucket {
            max_tokens: 2,
            tokens_per_fill: 1,
            fill_interval: Duration::from_secs(10),
        };
        TokenBucket::new(config, now)
    }

    #[test]
    fn a_burst_is_as_large_as_the_bucket() {
        let now = *ORIGIN;
        let bucket = bucket(now);

        assert!(bucket.take(now));
        assert!(bucket.take(now));
        assert!(!bucket.take(now));
        assert_eq!(bucket.next(now).as_secs(), 10);
        assert_eq!(bucket.full(now).as_secs(), 20);
    }

    #[test]
    fn tokens_come_back_with_time_and_no_more_than_fit() {
        let now = *ORIGIN;
        let bucket = bucket(now);
        assert!(bucket.take_several(2.0, now));

        let later = now + Duration::from_secs(10);
        assert!(bucket.take(later));
        assert!(!bucket.take(later));
        let much_later = now + Duration::from_secs(1000);
        assert!(bucket.take_several(2.0, much_later));
        assert!(!bucket.take(much_later));
    }
}
