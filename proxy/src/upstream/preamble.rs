//! What an endpoint is told of the client before anything else is sent: a header of the PROXY protocol, in clusters
//! that have it.
//!
//! `dial` sends it, before TLS too.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::config::cluster::ClusterConfig;
use crate::proxy_protocol::{Endpoints, Version, encode, encode_local};

/// A header before all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    version: Version,
    client: Option<Endpoints>,
}

impl Preamble {
    /// What is said to endpoints of a cluster, where anything is. `client` is the downstream connection; `None` is for
    /// the proxy's own connections: health checks, copies of requests, spans.
    pub fn of(cluster: &ClusterConfig, client: Option<Endpoints>) -> Option<Self> {
        let version = cluster.proxy_protocol?;
        Some(Preamble::new(version, client))
    }

    /// Of a version.
    pub fn new(version: Version, client: Option<Endpoints>) -> Self {
        Preamble { version, client }
    }

    /// Says it, on a connection that nothing was sent on.
    pub(super) async fn send(self, stream: &mut TcpStream) -> io::Result<()> {
        let header = match (self.version, self.client) {
            (version, Some(client)) => encode(version, &client),
            (Version::V2, None) => encode_local(),
            // As in Envoy: the line of a connection of its own names that one.
            (Version::V1, None) => {
                let own = Endpoints {
                    source: stream.local_addr()?,
                    destination: stream.peer_addr()?,
                };
                encode(Version::V1, &own)
            }
        };
        stream.write_all(&header).await
    }
}
