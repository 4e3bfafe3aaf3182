//! Taking turns by weight, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A rotation through some places, each visited as often as its weight says.
#[derive(Debug)]
pub struct Turns {
    /// Weights scaled so that the largest is `u16::MAX`.
    strides: Vec<u16>,
    /// Counts on from one rotation to its successor, so that a change does not begin anew.
    turn: Arc<AtomicU64>,
}

impl Turns {
    /// With weights, of which at least one is more than 0. Places of weight 0 have no turn.
    pub fn new(weights: &[f64], turn: Arc<AtomicU64>) -> Self {
        let largest = weights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        Turns {
            strides: weights
                .iter()
                .map(|weight| stride(*weight, largest))
                .collect(),
            turn,
        }
    }

    /// Whose turn it is.
    ///
    /// Static stride scheduling, as in gRPC's weighted round robin (gRFC A58): each place is visited once a round,
    /// and skipped in a share of the rounds that leaves it its weight.
    pub fn next(&self) -> usize {
        const WHOLE: u64 = u16::MAX as u64;
        let count = self.strides.len() as u64;
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let (round, index) = (turn / count, turn % count);
            // Below `count`, which came from a `usize`.
            let index = usize::try_from(index).unwrap_or(0);
            let stride = u64::from(self.strides[index]);
            let offset = WHOLE / 2 * index as u64;
            let phase = stride.wrapping_mul(round).wrapping_add(offset) % WHOLE;
            // The largest weight is a whole stride and is never skipped: the loop ends within a round.
            if phase >= WHOLE - stride {
                return index;
            }
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of the largest, between 0 and 1, times u16::MAX"
)]
fn stride(weight: f64, largest: f64) -> u16 {
    if weight <= 0.0 {
        return 0;
    }
    let share = (weight / largest).clamp(0.0, 1.0);
    ((share * f64::from(u16::MAX)).round() as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[f64], turns: usize) -> Vec<usize> {
        let rotation = Turns::new(weights, Arc::default());
        let mut counts = vec![0; weights.len()];
        for _ in 0..turns {
            counts[rotation.next()] += 1;
        }
        counts
    }

    #[test]
    fn taking_turns_among_equals_is_exact() {
        assert_eq!(counts(&[1.0, 1.0, 1.0], 300), [100, 100, 100]);
    }

    #[test]
    fn taking_turns_follows_the_weights_to_one_turn_in_a_thousand() {
        let counts = counts(&[5.0, 3.0, 2.0], 10_000);

        for (count, share) in counts.into_iter().zip([5000, 3000, 2000_usize]) {
            assert!(count.abs_diff(share) <= 10, "{count} of {share}");
        }
    }

    #[test]
    fn a_weight_of_nothing_has_no_turn() {
        assert_eq!(counts(&[0.0, 1.0], 10), [0, 10]);
    }

    #[test]
    fn turns_are_interleaved() {
        let rotation = Turns::new(&[1.0, 1.0], Arc::default());

        let order: Vec<_> = (0..6).map(|_| rotation.next()).collect();

        assert_eq!(order, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn a_successor_goes_on_where_its_predecessor_was() {
        let turn = Arc::new(AtomicU64::new(0));
        let before = Turns::new(&[1.0, 1.0], Arc::clone(&turn));
        assert_eq!(before.next(), 0);

        let after = Turns::new(&[1.0, 1.0], turn);

        assert_eq!(after.next(), 1);
    }
}
