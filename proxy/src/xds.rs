//! Configuration over xDS: from a control plane's resources to one checked configuration.
//!
//! `discovery` names the sources of listeners and clusters, `origin` those of what these name; `streams` runs what brings
//! them: `client` talks to services, in one of the protocol's variants (`dialogue`), `file` reads files, `watch` notices
//! changes of files. `state` publishes; `statics` and `cache` hold the resources, `translate` checks them, `assembly` puts
//! them together so that nothing points at what is not there yet, `store` keeps the last good ones on disk.

pub mod assembly;
pub mod backoff;
pub mod cache;
pub mod client;
pub mod control_plane_tls;
pub mod control_planes;
pub mod delta;
pub mod dialogue;
pub mod discovery;
pub mod file;
pub mod kind;
pub mod metrics;
pub mod origin;
pub mod references;
pub mod secrets;
pub mod state;
pub mod state_of_the_world;
pub mod statics;
pub mod store;
pub mod streams;
pub mod translate;
pub mod transport;
pub mod watch;

#[cfg(test)]
pub(crate) mod testing;
