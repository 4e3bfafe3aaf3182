//! How long an endpoint is likely to take: a moving average that remembers peaks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::outlier::millis;

/// A peak-sensitive, exponentially weighted moving average of latencies (Finagle's Peak EWMA): it rises at once,
/// and falls slowly.
#[derive(Debug, Default)]
pub struct Latency {
    /// The bits of an `f32` of seconds above, when it was measured below, in milliseconds; 0: never. One word, so
    /// that both change together.
    state: AtomicU64,
}

impl Latency {
    /// Adds what was measured.
    pub fn record(&self, measured: Duration, decay: Duration, now: Instant) {
        let now = when(now);
        let measured = measured.as_secs_f32();
        // Never retried for long: whoever comes between has just measured, too.
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                let (average, at) = taken_apart(state);
                let next = match at {
                    0 => measured,
                    _ if measured > average => measured,
                    at => {
                        let kept = kept(now.wrapping_sub(at), decay);
                        average * kept + measured * (1.0 - kept)
                    }
                };
                Some(put_together(next, now))
            });
    }

    /// The average in seconds, fallen since it was measured: an endpoint that nobody asks is forgiven in time.
    pub fn expected(&self, default: Duration, decay: Duration, now: Instant) -> f32 {
        let (average, at) = taken_apart(self.state.load(Ordering::Relaxed));
        if at == 0 {
            return default.as_secs_f32();
        }
        average * kept(when(now).wrapping_sub(at), decay)
    }
}

fn kept(millis: u32, decay: Duration) -> f32 {
    #[allow(clippy::cast_precision_loss, reason = "an average needs no more")]
    let elapsed = millis as f32 / 1000.0;
    (-elapsed / decay.as_secs_f32().max(f32::MIN_POSITIVE)).exp()
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "it wraps after seven weeks"
)]
fn when(now: Instant) -> u32 {
    (millis(now) as u32).max(1)
}

fn put_together(average: f32, at: u32) -> u64 {
    u64::from(average.to_bits()) << 32 | u64::from(at)
}

#[allow(clippy::cast_possible_truncation, reason = "the two halves of a word")]
fn taken_apart(state: u64) -> (f32, u32) {
    (f32::from_bits((state >> 32) as u32), state as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);
    const DEFAULT: Duration = Duration::from_millis(10);

    fn millis_of(latency: &Latency, now: Instant) -> f32 {
        latency.expected(DEFAULT, DECAY, now) * 1000.0
    }

    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let start = Instant::now() + Duration::from_secs(1);
        let latency = Latency::default();
        assert!((millis_of(&latency, start) - 10.0).abs() < 0.1);

        latency.record(Duration::from_millis(5), DECAY, start);
        latency.record(Duration::from_millis(500), DECAY, start);
        assert!((millis_of(&latency, start) - 500.0).abs() < 0.1);

        latency.record(
            Duration::from_millis(5),
            DECAY,
            start + Duration::from_secs(1),
        );
        assert!(millis_of(&latency, start + Duration::from_secs(1)) > 400.0);
        assert!(millis_of(&latency, start + Duration::from_secs(61)) < 5.0);
    }
}
