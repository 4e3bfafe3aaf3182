//! Ketama's ring: endpoints at many points of a circle, a request at the next one after its hash.

use super::{HashedEndpoint, hash_key};
use crate::config::balancing::HashFunction;

/// A ring.
#[derive(Debug)]
pub struct Ring {
    /// Sorted by hash.
    points: Vec<(u64, u32)>,
}

impl Ring {
    /// Points in proportion to the weights, so many that the smallest weight has a whole number of them.
    pub fn new(
        endpoints: &[HashedEndpoint<'_>],
        min_size: u64,
        max_size: u64,
        function: HashFunction,
    ) -> Self {
        let smallest = endpoints
            .iter()
            .map(|endpoint| endpoint.weight)
            .fold(f64::INFINITY, f64::min);
        if !smallest.is_finite() || smallest <= 0.0 {
            return Ring { points: vec![] };
        }
        let scale = ((smallest * as_float(min_size)).ceil() / smallest).min(as_float(max_size));
        let mut points = Vec::new();
        let (mut current, mut target) = (0.0, 0.0);
        for (index, endpoint) in (0_u32..).zip(endpoints) {
            target += scale * endpoint.weight;
            let mut count = 0_u64;
            while current < target {
                let key = format!("{}_{count}", endpoint.key);
                points.push((hash_key(function, key.as_bytes()), index));
                count += 1;
                current += 1.0;
            }
        }
        points.sort_unstable();
        Ring { points }
    }

    /// The endpoint of a hash; another one for each further attempt.
    pub fn choose(&self, hash: u64, attempt: usize) -> Option<usize> {
        let count = self.points.len();
        if count == 0 {
            return None;
        }
        let at = self.points.partition_point(|(point, _)| *point < hash);
        let (_, index) = self.points[(at + attempt) % count];
        usize::try_from(index).ok()
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

#[allow(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
fn as_float(size: u64) -> f64 {
    size as f64
}
