//! The data path over real sockets: fakes before and behind it, nothing of it replaced.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod client;
mod config;
mod inside;
mod passthrough;
mod proxied;
mod proxy;
mod reports;
mod upstream;

mod announced;
mod backpressure;
mod balancing;
mod certificates;
mod configuration;
mod detection;
mod exchanges;
mod filters;
mod hostile;
mod http1;
mod http2;
mod lifespans;
mod limits;
mod local_channels;
mod mirrors;
mod narrowing;
mod overload;
mod preconnect;
mod races;
mod redirect;
mod resilience;
mod routing;
mod shared;
mod shared_requests;
mod tls;
mod transparent;
mod tunnelled;
mod tunnels;
