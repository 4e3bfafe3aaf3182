//! A connection from another sidecar of this machine, over a local channel.
//!
//! It takes the chain that the same connection would have taken through the network, with TLS, and is served by it
//! in the same way; its peer is believed or not for the same reasons.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use weft_proto::handoff::{Introduction, welcome};
use weft_proto::names;

use super::io::DownstreamIo;
use super::tls::{Agreed, Peer, inside};
use super::{Connection, Counted};
use crate::cluster::stats::ClusterStats;
use crate::config::listener::{Binding, Direction, TransportProtocol};
use crate::drain::Drain;
use crate::snapshot::Snapshot;
use crate::snapshot::chain::Chain;
use crate::snapshot::listener::Listener;
use crate::telemetry::session::Session;
use crate::tls::introduced::{Side, believe};
use crate::upstream::environment::Environment;
use crate::upstream::explain;

/// How long the first byte may take to be written.
const WELCOME_LIMIT: Duration = Duration::from_secs(1);

/// One end of a local channel, and who has the other.
#[derive(Debug)]
pub struct Introduced {
    /// Its bytes.
    pub stream: UnixStream,
    /// What the broker says of it.
    pub introduction: Introduction,
}

/// Serves a connection to its end. Where it cannot be served it is closed, and its peer takes the ordinary way.
pub async fn serve(environment: Arc<Environment>, introduced: Introduced, drain: Drain) {
    let _open = (drain.token(), environment.drain.token());
    let Introduced {
        mut stream,
        introduction,
    } = introduced;
    let snapshot = environment.snapshot.load_full();
    let destination = introduction.destination;
    let Some(listener) = listener(&snapshot, destination) else {
        return tracing::debug!("local channel closed: nothing listens for redirected connections");
    };
    let source = SocketAddr::new(introduction.source, 0);
    let client_source = super::client_source(&listener, source, source);
    let mut connection = Connection {
        environment,
        snapshot,
        listener,
        peer: source,
        direct_peer: source,
        local: destination,
        original_destination: Some(destination),
        client_source,
        drain,
        line: None,
    };
    let Some((chain, peer)) = connection.admit(&introduction) else {
        return;
    };
    let Some(_counted) = Counted::admit(&connection.listener) else {
        return;
    };
    let protocol = introduction.protocol.as_deref();
    let welcomed =
        tokio::time::timeout(WELCOME_LIMIT, stream.write_all(&[welcome(protocol)])).await;
    if !matches!(welcomed, Ok(Ok(()))) {
        return;
    }
    ClusterStats::count(&connection.listener.live.local_channels);
    connection.begin_line();
    connection
        .serve_introduced(chain, peer, protocol, stream)
        .await;
}

/// The listener of connections that are redirected to this sidecar, or the virtual one for that destination.
fn listener(snapshot: &Snapshot, destination: SocketAddr) -> Option<Arc<Listener>> {
    let takes_redirected = |listener: &&Arc<Listener>| {
        let config = &listener.config;
        config.binding == Binding::Bound
            && config.direction == Direction::Inbound
            && config.use_original_destination
    };
    let bound = snapshot.listeners.values().find(takes_redirected)?;
    Some(Arc::clone(
        snapshot.virtual_listener(destination).unwrap_or(bound),
    ))
}

impl Connection {
    /// The chain that is for it, and the peer, believed.
    fn admit(&self, introduction: &Introduction) -> Option<(Arc<Chain>, Peer)> {
        let protocol = introduction.protocol.as_deref();
        let protocols: Vec<&str> = protocol.map(inside).into_iter().collect();
        let server_name = introduction.server_name.as_deref();
        let arrival = self.arrival(Some(TransportProtocol::Tls), &protocols, server_name);
        let chain = self.listener.chain(&arrival)?;
        // Without TLS in the chain it is somebody further on who would have to end it.
        let termination = chain.tls.as_ref()?;
        let tls = &termination.config;
        // What is shared has been offered for what the chain is for, or not at all.
        let is_shared =
            protocol == Some(names::ALPN_STREAMS) || protocol == Some(names::ALPN_HTTP1_STREAMS);
        if is_shared && protocol != termination.streams {
            return None;
        }
        let is_spoken = |protocol: &&str| tls.alpn.iter().any(|each| **each == **protocol);
        if !tls.alpn.is_empty() && !protocols.iter().all(is_spoken) {
            return None;
        }
        let identity = self.environment.upstreams.identity.borrow().clone()?;
        let expected = tls.believes.as_ref().filter(|_| tls.needs_identity())?;
        let principal = believe(&identity, introduction, &expected.names, Side::Client)
            .inspect_err(|error| {
                ClusterStats::count(&self.listener.live.tls_failures);
                tracing::debug!(error = explain(error), "local channel closed");
            })
            .ok()?;
        let certificates = introduction.certificates.0.iter();
        let certificates: Vec<_> = certificates.cloned().map(CertificateDer::from).collect();
        // There was no handshake.
        let session = Session::new(None, None, certificates.first());
        let peer = Peer {
            principal: Some(principal),
            server_name: server_name.map(Arc::from),
            session: Some(Box::new(session)),
            certificates,
            own: Some(Arc::clone(&identity.spiffe_id)),
        };
        Some((Arc::clone(chain), peer))
    }

    async fn serve_introduced(
        self,
        chain: Arc<Chain>,
        peer: Peer,
        protocol: Option<&str>,
        stream: UnixStream,
    ) {
        let agreed = Agreed::by(protocol);
        self.serve_secured(DownstreamIo::local(stream), chain, agreed, peer)
            .await;
    }
}
