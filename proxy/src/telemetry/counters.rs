//! Counters by name, in Envoy's words: what filters count, for `/stats`.
//!
//! Whoever counts looks its counters up once and keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// All counters of a data plane. Names come from configuration alone, so that there is no end to nothing.
#[derive(Debug, Default)]
pub struct Counters {
    all: RwLock<BTreeMap<Arc<str>, Arc<Count>>>,
}

/// A count, which may also go down.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts several.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Counts one in, unless there are as many already.
    pub fn increment_below(&self, limit: u64) -> bool {
        let below = |current: u64| (current < limit).then_some(current + 1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .is_ok()
    }

    /// The count now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// The counter of a name, made where it is new.
    pub fn counter(&self, name: &str) -> Arc<Count> {
        if let Some(found) = self.all.read().get(name) {
            return Arc::clone(found);
        }
        let mut all = self.all.write();
        Arc::clone(all.entry(name.into()).or_default())
    }

    /// All of them, in order.
    pub fn read(&self) -> Vec<(Arc<str>, u64)> {
        let all = self.all.read();
        all.iter()
            .map(|(name, count)| (Arc::clone(name), count.value()))
            .collect()
    }
}

/// Counters with a common prefix, as fields of a struct.
macro_rules! counted {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident { $($field:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $visibility struct $name {
            $($visibility $field: std::sync::Arc<$crate::telemetry::counters::Count>),+
        }

        impl $name {
            /// The counters that begin with `prefix`.
            $visibility fn new(all: &$crate::telemetry::counters::Counters, prefix: &str) -> Self {
                $name { $($field: all.counter(&format!("{prefix}{}", stringify!($field)))),+ }
            }
        }
    };
}

pub(crate) use counted;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_counter() {
        let counters = Counters::default();

        counters.counter("b").increment();
        counters.counter("b").add(2);
        counters.counter("a").set(7);

        assert_eq!(counters.read(), [("a".into(), 7), ("b".into(), 3)]);
    }

    #[test]
    fn no_more_are_counted_in_than_may_be() {
        let count = Count::default();

        assert!(count.increment_below(1));
        assert!(!count.increment_below(1));
        count.decrement();
        assert!(count.increment_below(1));
    }
}
