//! The control plane: store, API, translation to xDS, certificate authority.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod admission;
pub mod kinds;
pub mod refusal;
pub mod revisions;
pub mod store;
pub mod validation;
