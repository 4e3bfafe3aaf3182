//! The control plane: store, API, translation to xDS, certificate authority.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod kinds;
pub mod revisions;
pub mod store;
