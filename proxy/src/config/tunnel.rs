//! How bytes of TCP are carried in a request of HTTP, to a proxy further on.

use std::sync::Arc;

use super::headers::HeaderMutations;
use crate::telemetry::access_log::format::Template;

/// What is asked of the upstream (Envoy's `tunneling_config`).
#[derive(Debug, Clone, PartialEq)]
pub struct TunnelConfig {
    /// Where the tunnel is to lead: the authority of the request.
    pub hostname: Template,
    /// How it is asked for.
    pub method: TunnelMethod,
    /// What else the upstream is told.
    pub headers: HeaderMutations,
}

/// How a tunnel is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelMethod {
    /// By CONNECT (RFC 9110 §9.3.6).
    Connect,
    /// By POST: the bodies of request and response are the two directions.
    Post {
        /// The path of the request.
        path: Arc<str>,
    },
}
