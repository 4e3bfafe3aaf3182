//! A place in a filter's configuration for what lives as long as it: token buckets, counters, caches.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// What the data path keeps of a filter. Configurations are compared without it, and copies of one share it.
#[derive(Clone, Default)]
pub struct Live(Arc<OnceLock<Box<dyn Any + Send + Sync>>>);

impl Live {
    /// What is kept here, made on first use. A place is always asked for the same type.
    pub fn get_or_init<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> &T {
        self.0
            .get_or_init(|| Box::new(make()))
            .downcast_ref()
            .expect("a place is used for one type")
    }
}

impl PartialEq for Live {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Live")
    }
}
