//! The control plane: store, API, translation to xDS, certificate authority.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod admission;
pub mod api;
pub mod attest;
pub mod auth;
pub mod ca;
pub mod identity;
pub mod kinds;
pub mod mesh;
pub mod refusal;
pub mod revisions;
pub mod store;
pub mod translate;
pub mod validation;
pub mod xds;

mod start;

pub use start::{Error, Options, Running, run, start};
