//! How long to wait before trying again: exponential, with full jitter.
//!
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>

use std::time::Duration;

use rand::{Rng, RngExt};

/// The waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// At most `first` before the second attempt, doubled for each further one up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// After a success the next failure waits as the first did.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: between half and all of the current step, so that many clients of one
    /// server spread out and none comes back at once.
    pub fn next_wait(&mut self, random: &mut impl Rng) -> Duration {
        let step = self
            .first
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = (self.failures + 1).min(31);
        step.min(self.longest)
            .mul_f64(random.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));

        let waits: Vec<_> = (0..40).map(|_| backoff.next_wait(&mut random)).collect();
        backoff.reset();
        let after_success = backoff.next_wait(&mut random);

        assert!((50..=100).contains(&waits[0].as_millis()), "{waits:?}");
        assert!((100..=200).contains(&waits[1].as_millis()), "{waits:?}");
        assert!(
            waits[2..]
                .iter()
                .all(|wait| (150..=300).contains(&wait.as_millis())),
            "{waits:?}"
        );
        assert!((50..=100).contains(&after_success.as_millis()));
    }
}
