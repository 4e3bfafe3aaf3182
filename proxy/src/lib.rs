//! The data plane: the sidecar proxy.
//!
//! [`run`] is all of it: `weft proxy` calls it and returns when it does. What is below is cut in layers, of which
//! lower never imports higher: `app workers admin` › `listener connection xds` › `http tcp` › `tls upstream` ›
//! `snapshot cluster` › `config telemetry clock drain gather handover hop_by_hop http1 http2 pace prefixed present
//! proxy_protocol socket_option stream turn wire`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod admin;
pub mod app;
pub mod bootstrap;
pub mod certificate;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod drain;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod gather;
pub mod handover;
pub mod hop_by_hop;
pub mod http;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod listener;
pub mod overload;
pub mod pace;
pub mod prefixed;
pub mod present;
pub mod proxy_protocol;
pub mod random;
pub mod snapshot;
mod socket_option;
pub mod stream;
mod sys;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod token_bucket;
pub mod turn;
pub mod upstream;
pub mod wire;
pub mod workers;
pub mod xds;

pub use app::{Error, Mode, Options, run};
