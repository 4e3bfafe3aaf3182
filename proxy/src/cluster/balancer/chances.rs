//! Drawing one of several places by weight.

use rand::Rng;

use crate::random;

/// Draws by weight.
#[derive(Debug)]
pub(super) struct Chances {
    pub(super) weights: Vec<f64>,
    /// Sums of the weights up to and with each, scaled to whole numbers.
    cumulative: Vec<u64>,
    is_even: bool,
}

impl Chances {
    pub(super) fn new(weights: Vec<f64>) -> Self {
        let largest = weights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let mut sum = 0_u64;
        let cumulative = weights
            .iter()
            .map(|weight| {
                sum = sum.saturating_add(scaled(weight / largest));
                sum
            })
            .collect();
        #[allow(clippy::float_cmp, reason = "equal weights come from equal numbers")]
        let is_even = weights.iter().all(|weight| *weight == largest);
        Chances {
            weights,
            cumulative,
            is_even,
        }
    }

    pub(super) fn draw(&self, random: &mut impl Rng) -> usize {
        let count = self.weights.len();
        if self.is_even {
            return usize::try_from(random::below(random, count as u64)).unwrap_or(0);
        }
        let total = self.cumulative.last().copied().unwrap_or(0);
        let point = random::below(random, total);
        self.cumulative
            .partition_point(|sum| *sum <= point)
            .min(count.saturating_sub(1))
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share between 0 and 1, of 2^32"
)]
fn scaled(share: f64) -> u64 {
    ((share * 4_294_967_296.0) as u64).max(1)
}
