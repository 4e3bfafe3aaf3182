//! Making one connection to an endpoint: TCP, the PROXY header where the cluster has it, then TLS where the endpoint
//! has it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use weft_proto::names;

use super::connect::{Origin, connect};
use super::guise::Guise;
use super::io::{Socket, UpstreamBytes, UpstreamIo};
use super::{ConnectFailure, Upstreams, explain};
use crate::cluster::Cluster;
use crate::cluster::endpoint::{Endpoint, EndpointTransport, TlsTransport};
use crate::cluster::stats::ClusterStats;
use crate::config::Network;
use crate::config::cluster::ClusterConfig;
use crate::socket_option;
use crate::tls;
use crate::wire::Wire;

/// What is offered by ALPN.
#[derive(Debug, Clone, Copy)]
enum Offered<'a> {
    /// What the transport is configured with.
    Configured,
    /// This.
    One(&'a str),
    /// To be shared by opaque connections, beside nothing.
    Streams,
}

/// A new connection, and what was agreed on.
#[derive(Debug)]
pub(super) enum Opened {
    /// For who has asked for it alone.
    Own(UpstreamIo),
    /// To be shared; its streams are what is counted.
    Shared(UpstreamIo),
}

impl Upstreams {
    /// A new connection to an endpoint, within the cluster's connect time-out. `alpn` says what will be
    /// spoken; `None` takes what the transport is configured with.
    pub async fn dial(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        alpn: Option<&'static str>,
        guise: Guise,
    ) -> Result<UpstreamIo, ConnectFailure> {
        let limit = cluster.config.connect_timeout;
        let address = endpoint.address;
        let offered = alpn.map(Offered::One).unwrap_or(Offered::Configured);
        let dialled = self.dial_unbounded(&cluster.config, endpoint, address, offered, guise);
        let result = tokio::time::timeout(limit, dialled)
            .await
            .unwrap_or(Err(ConnectFailure::Timeout { address, limit }));
        count(&cluster.stats, result.as_ref().err());
        result.map(|io| io.counted(&cluster.stats))
    }

    /// A new connection for opaque bytes, to be shared where its peer agrees to that.
    pub(super) async fn dial_to_share(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        guise: Guise,
    ) -> Result<Opened, ConnectFailure> {
        let limit = cluster.config.connect_timeout;
        let address = endpoint.address;
        let offered = Offered::Streams;
        let dialled = self.dial_unbounded(&cluster.config, endpoint, address, offered, guise);
        let result = tokio::time::timeout(limit, dialled)
            .await
            .unwrap_or(Err(ConnectFailure::Timeout { address, limit }));
        count(&cluster.stats, result.as_ref().err());
        let io = result?;
        Ok(match io.agreed() == Some(names::ALPN_STREAMS.as_bytes()) {
            true => Opened::Shared(io),
            false => Opened::Own(io.counted(&cluster.stats)),
        })
    }

    /// A new connection to where an endpoint is asked whether it is well; it is not counted among the cluster's.
    pub async fn dial_at(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        address: SocketAddr,
        alpn: Option<&'static str>,
        instead: Option<&str>,
    ) -> Result<UpstreamIo, ConnectFailure> {
        let limit = cluster.config.connect_timeout;
        let offered = match (instead, alpn) {
            (Some(instead), _) => Offered::One(instead),
            (None, Some(alpn)) => Offered::One(alpn),
            (None, None) => Offered::Configured,
        };
        let guise = Guise::own(&cluster.config);
        let dialled = self.dial_unbounded(&cluster.config, endpoint, address, offered, guise);
        tokio::time::timeout(limit, dialled)
            .await
            .unwrap_or(Err(ConnectFailure::Timeout { address, limit }))
    }

    async fn dial_unbounded(
        &self,
        cluster: &ClusterConfig,
        endpoint: &Endpoint,
        address: SocketAddr,
        offered: Offered<'_>,
        guise: Guise,
    ) -> Result<UpstreamIo, ConnectFailure> {
        let failed = |source| ConnectFailure::Io {
            address,
            source: Arc::new(source),
        };
        if guise.is_shared()
            && let Some(io) = self
                .local_channel(cluster, endpoint, address, offered)
                .await
        {
            return Ok(io);
        }
        let mut stream = match cluster.network {
            Network::Sandbox => {
                let sources = cluster.sources.as_ref().or(self.sources.as_ref());
                let origin = Origin {
                    sources: sources.map(Arc::as_ref),
                    client: guise.source,
                };
                connect(address, origin)
                    .await
                    .map_err(|error| error.towards(address))?
            }
            Network::Host => {
                let dialled = self.dial_in_host(address, cluster.connect_timeout);
                dialled.await.map_err(failed)?
            }
        };
        // Small writes are whole messages here; waiting for more would only add latency.
        stream.set_nodelay(true).map_err(failed)?;
        if let Some(keepalive) = cluster.keepalive {
            socket_option::keep_alive(&stream, keepalive).map_err(failed)?;
        }
        if let Some(preamble) = guise.preamble {
            preamble.send(&mut stream).await.map_err(failed)?;
        }
        match &endpoint.transport {
            EndpointTransport::Plaintext => {
                let socket = Socket::over(Wire::Tcp(stream));
                Ok(UpstreamIo::new(UpstreamBytes::Plain(socket)))
            }
            EndpointTransport::Tls(transport) => {
                self.handshake(transport, address, stream, offered).await
            }
        }
    }

    /// A local channel, in place of a connection with TLS within the mesh, where there is one to be had.
    async fn local_channel(
        &self,
        cluster: &ClusterConfig,
        endpoint: &Endpoint,
        address: SocketAddr,
        offered: Offered<'_>,
    ) -> Option<UpstreamIo> {
        let channels = self.local_channels.as_ref()?;
        let EndpointTransport::Tls(transport) = &endpoint.transport else {
            return None;
        };
        if cluster.network != Network::Sandbox || !transport.config.is_of_mesh() {
            return None;
        }
        let protocol = match (offered, transport.config.alpn.as_slice()) {
            (Offered::One(protocol), _) => Some(protocol),
            // What is spoken is for each alone.
            (Offered::Streams, _) => None,
            (Offered::Configured, []) => None,
            (Offered::Configured, [protocol]) => Some(&**protocol),
            // Which of them is spoken is for a handshake to find out.
            (Offered::Configured, _) => return None,
        };
        let identity = self.identity.borrow().clone()?;
        let opened = channels.open(&identity, &transport.config, address, protocol);
        match opened.await {
            Ok(channel) => {
                let socket = Socket::over(Wire::Local(channel));
                Some(UpstreamIo::new(UpstreamBytes::Plain(socket)))
            }
            Err(none) => {
                tracing::trace!(%address, reason = explain(&none), "no local channel");
                None
            }
        }
    }

    async fn dial_in_host(&self, address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        TcpStream::from_std(self.host_network.dial(address, limit).await?)
    }

    async fn handshake(
        &self,
        transport: &TlsTransport,
        address: SocketAddr,
        stream: TcpStream,
        offered: Offered<'_>,
    ) -> Result<UpstreamIo, ConnectFailure> {
        let connector = tls::client::connector(transport, &self.identity).map_err(Arc::new)?;
        let protocols = match offered {
            Offered::One(protocol) => vec![protocol.as_bytes().to_vec()],
            Offered::Streams => vec![names::ALPN_STREAMS.as_bytes().to_vec()],
            Offered::Configured => transport
                .config
                .alpn
                .iter()
                .map(|each| each.as_bytes().to_vec())
                .collect(),
        };
        let name = tls::client::server_name(&transport.config, address.ip());
        let connected = connector
            .with_alpn(protocols)
            .connect(name, Socket::over(Wire::Tcp(stream)))
            .await;
        let stream = connected.map_err(|source| ConnectFailure::Tls {
            address,
            source: Arc::new(source),
        })?;
        Ok(UpstreamIo::new(UpstreamBytes::Tls(Box::new(stream))))
    }
}

fn count(stats: &ClusterStats, failure: Option<&ConnectFailure>) {
    let Some(failure) = failure else {
        ClusterStats::count(&stats.connections);
        return;
    };
    ClusterStats::count(&stats.connect_failures);
    match failure {
        ConnectFailure::Timeout { .. } => ClusterStats::count(&stats.connect_timeouts),
        ConnectFailure::Bind { .. } => ClusterStats::count(&stats.bind_failures),
        ConnectFailure::Io { .. } => stats.connection_ended(true, false),
        ConnectFailure::Tls { .. } | ConnectFailure::NoTls(_) => {
            ClusterStats::count(&stats.tls_failures);
        }
        _ => {}
    }
}
