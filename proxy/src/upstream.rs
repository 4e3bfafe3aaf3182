//! The way to endpoints: connections dialled, pooled and lent, in the sandbox's network or the host's.
//!
//! `http` borrows a connection for each attempt; `tcp` dials one for each of its own. Every wait here ends by
//! the cluster's connect time-out at the latest.

pub mod body;
mod connect;
mod consent;
pub mod dial;
pub mod environment;
pub mod error;
pub mod guise;
pub mod health;
pub mod host_network;
pub mod http1;
pub mod http2;
pub mod io;
pub mod keeper;
pub mod lease;
pub mod local_channel;
pub mod pool;
pub mod preamble;
mod preconnect;
pub mod resolve;
pub mod response;
pub mod shard;
pub mod shared;
pub mod upgraded;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::identity::IdentityReceiver;
use crate::config::upstream_socket::Sources;
use host_network::HostNetwork;
use local_channel::LocalChannels;

/// What connections are made with.
#[derive(Clone)]
pub struct Upstreams {
    /// The workload's identity, for TLS.
    pub identity: IdentityReceiver,
    /// The way into the host's network.
    pub host_network: Arc<dyn HostNetwork>,
    /// What connections of clusters are made from that do not say so.
    pub sources: Option<Arc<Sources>>,
    /// The way to other sidecars of this machine; `None`: like the way to any other endpoint.
    pub local_channels: Option<LocalChannels>,
}

/// The version of HTTP that is spoken upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl HttpVersion {
    /// As ALPN calls it.
    pub fn alpn(self) -> &'static str {
        match self {
            HttpVersion::Http1 => weft_proto::names::ALPN_HTTP1,
            HttpVersion::Http2 => weft_proto::names::ALPN_HTTP2,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectFailure {
    /// The cluster's circuit breaker refuses.
    #[error(transparent)]
    Overflow(#[from] crate::cluster::breaker::Overflow),
    /// It took too long.
    #[error("connecting to {address} took longer than {limit:?}")]
    Timeout {
        /// Where to.
        address: SocketAddr,
        /// The connect time-out.
        limit: std::time::Duration,
    },
    /// It could not have the address that it is to be made from.
    #[error("binding a connection to {address}")]
    Bind {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// It could not be made.
    #[error("connecting to {address}")]
    Io {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// The peer is not who it should be, or does not believe us.
    #[error("TLS handshake with {address}")]
    Tls {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// There is no TLS to connect with.
    #[error(transparent)]
    NoTls(#[from] Arc<crate::tls::TlsError>),
    /// The HTTP handshake failed.
    #[error("HTTP handshake with {address}")]
    Http {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: Arc<h2::Error>,
    },
    /// The peer does not let requests of HTTP/1.1 share a connection.
    #[error("{address} lets no requests share a connection")]
    Declined {
        /// Where to.
        address: SocketAddr,
    },
    /// It is no tunnel.
    #[error("tunnel through {address}")]
    Tunnel {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: Arc<TunnelFailure>,
    },
}

/// Why a request for a tunnel has come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TunnelFailure {
    /// It cannot be asked for.
    #[error("a tunnel to {authority:?} cannot be asked for: set a hostname that is host:port")]
    Request {
        /// What the hostname comes to.
        authority: String,
        /// Why.
        source: http::Error,
    },
    /// The upstream does not want it.
    #[error("the upstream answers {0}")]
    Refused(http::StatusCode),
    /// There was no answer.
    #[error("the upstream has not answered within {0:?}")]
    Late(std::time::Duration),
    /// The connection was lost.
    #[error("the connection was lost before there was a tunnel")]
    Http(#[source] error::ExchangeError),
}

impl ConnectFailure {
    /// Whether it took too long.
    pub fn is_timeout(&self) -> bool {
        matches!(self, ConnectFailure::Timeout { .. })
    }
}

/// An error with all that led to it, as one sentence.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
