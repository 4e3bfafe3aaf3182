//! Configuration over xDS.

pub mod backoff;
pub mod kind;
pub mod store;
pub mod stream;
pub mod translate;
pub mod transport;
