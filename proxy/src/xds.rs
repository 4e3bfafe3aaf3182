//! Configuration over xDS: from a control plane's resources to one checked configuration.
//!
//! `client` talks, `state` publishes; `cache` holds the resources, `translate` checks them, `assembly` puts them
//! together so that nothing points at what is not there yet, `store` keeps the last good ones on disk.

pub mod assembly;
pub mod backoff;
pub mod cache;
pub mod client;
pub mod kind;
pub mod metrics;
pub mod references;
pub mod secrets;
pub mod state;
pub mod store;
pub mod stream;
pub mod translate;
pub mod transport;

#[cfg(test)]
pub(crate) mod testing;
