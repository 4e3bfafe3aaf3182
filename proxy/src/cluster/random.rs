//! Random numbers for balancing, weights and percentages: fast, and not for secrets.

use std::cell::RefCell;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

thread_local! {
    static RANDOM: RefCell<SmallRng> = RefCell::new(rand::make_rng());
}

/// A number drawn evenly from all of `u32`.
pub fn draw() -> u32 {
    RANDOM.with_borrow_mut(|random| random.random())
}

/// Lends the thread's generator.
pub fn with<T>(draw: impl FnOnce(&mut SmallRng) -> T) -> T {
    RANDOM.with_borrow_mut(draw)
}

/// A number below `end`; 0 where `end` is 0.
pub fn below(random: &mut impl Rng, end: u64) -> u64 {
    if end == 0 {
        0
    } else {
        random.random_range(0..end)
    }
}
