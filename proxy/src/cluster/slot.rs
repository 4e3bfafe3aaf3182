//! A place in a lower layer's value for what a higher layer makes of it.
//!
//! Connection pools belong to endpoints, and TLS configurations to transports: they are kept as long, and
//! dropped with them. But endpoints know neither of pools nor of TLS.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// What a higher layer keeps here, if it has been asked for.
#[derive(Default)]
pub struct Slot(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Slot {
    /// What is kept here, made on first use. A slot is always asked for the same type.
    pub fn get_or_init<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> &T {
        self.0
            .get_or_init(|| Arc::new(make()))
            .downcast_ref()
            .expect("a slot is used for one type")
    }

    /// What is kept here, if anything.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.get()?.downcast_ref()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.0.get().is_some() {
            "taken"
        } else {
            "empty"
        };
        formatter.debug_tuple("Slot").field(&state).finish()
    }
}
