//! Whom the endpoint of a connection sees: the proxy alone, or a client, by its address or a PROXY header.
//!
//! The pool keeps it beside each connection: one that shows a client must not carry requests of another.

use super::preamble::Preamble;
use crate::config::cluster::ClusterConfig;
use crate::config::upstream_socket::ClientSource;
use crate::proxy_protocol::Endpoints;

/// What a connection shows of the client that it is made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guise {
    /// What is said before all else.
    pub(super) preamble: Option<Preamble>,
    /// The address that it is made from.
    pub(super) source: Option<ClientSource>,
}

impl Guise {
    /// Of the proxy's own connections to endpoints of a cluster: health checks, copies of requests, spans.
    pub fn own(cluster: &ClusterConfig) -> Self {
        Guise {
            preamble: Preamble::of(cluster, None),
            source: None,
        }
    }

    /// Of connections for a client.
    pub fn of(cluster: &ClusterConfig, client: Endpoints, source: Option<ClientSource>) -> Self {
        Guise {
            preamble: Preamble::of(cluster, Some(client)),
            source,
        }
    }

    /// With this said first in any case.
    pub fn announced(self, preamble: Option<Preamble>) -> Self {
        Guise {
            preamble: preamble.or(self.preamble),
            ..self
        }
    }

    /// Whether all may share such a connection.
    pub(super) fn is_shared(&self) -> bool {
        self.preamble.is_none() && self.source.is_none()
    }
}
