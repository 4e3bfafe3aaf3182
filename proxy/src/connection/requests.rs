//! Connections that carry HTTP: of which version, counted by which manager, and handed over to be served.

use std::sync::Arc;
use std::time::Duration;

use super::detect::{Seen, classify, look_ahead};
use super::io::DownstreamIo;
use super::{Connection, tls};
use crate::config::http::Codec;
use crate::http::{Entry, HttpConnection, Spoken, serve};
use crate::snapshot::chain::{Chain, HttpService};
use crate::tcp::gate;
use crate::telemetry::managers::{HttpEvent, ManagedConnection};
use crate::upstream::HttpVersion;

impl Connection {
    /// HTTP of a version that only the bytes tell: what is no HTTP/2 is left to the HTTP/1 parser to judge.
    pub(super) async fn serve_http_of_any_version(
        self,
        mut io: DownstreamIo,
        chain: Arc<Chain>,
        service: Arc<HttpService>,
        peer: Option<tls::Peer>,
    ) {
        let managed = self.managed(&service, peer.as_ref());
        let version = match service.config.codec {
            Codec::Http1 => HttpVersion::Http1,
            codec => {
                let idle = service.config.idle_timeout;
                let looked = match classify(io.read_ahead()) {
                    Some(seen) => Ok(seen),
                    None => tokio::select! {
                        looked = look_ahead(&mut io) => looked,
                        () = passed(idle) => {
                            managed.stats().count_all([HttpEvent::ConnectionIdle, HttpEvent::EndedHere]);
                            return;
                        }
                        () = self.drain.patience_over() => {
                            managed.stats().count(HttpEvent::EndedHere);
                            return;
                        }
                    },
                };
                match looked.map(|seen| spoken(codec, seen)) {
                    Ok(Some(version)) => version,
                    Ok(None) => return managed.end_without_http2(),
                    Err(_) => {
                        managed.stats().count(HttpEvent::EndedByClient);
                        return;
                    }
                }
            }
        };
        self.serve_http(io, chain, (service, managed), version.into(), peer)
            .await;
    }

    /// Counts a connection among those of a connection manager.
    pub(super) fn managed(
        &self,
        service: &HttpService,
        peer: Option<&tls::Peer>,
    ) -> ManagedConnection {
        let prefix = &service.config.stat_prefix;
        let managers = &self.environment.managers;
        let stats = managers.of(prefix, &self.listener.config.name);
        ManagedConnection::begin(stats, peer.is_some())
    }

    pub(super) async fn serve_http(
        mut self,
        io: DownstreamIo,
        chain: Arc<Chain>,
        (service, managed): (Arc<HttpService>, ManagedConnection),
        spoken: Spoken,
        peer: Option<tls::Peer>,
    ) {
        let downstream = self.downstream(peer.as_ref());
        let counters = &self.environment.counters;
        let _passed = match gate::pass(&chain.gates, &downstream, counters).await {
            Ok(passed) => passed,
            Err(denied) => {
                managed.stats().count(HttpEvent::EndedHere);
                return self.deny(denied);
            }
        };
        let entry = Entry {
            downstream,
            original_destination: self.original_destination,
            client_source: self.client_source,
            spoken,
            managed,
            is_tls: peer.is_some(),
            network: self.listener.config.network,
            client_certificate: peer.and_then(|peer| peer.forwarded(&service.config)),
            chain,
        };
        let connection = HttpConnection::new(self.environment, self.snapshot, service, entry);
        // Boxed: where bytes are proxied in its place, nobody holds the room for it.
        let served = Box::pin(serve::serve(io, spoken.version, connection, self.drain));
        if let Err(error) = served.await {
            tracing::debug!(peer = %self.peer, %error, "downstream connection ended");
        }
    }
}

/// The version that is spoken; none where only HTTP/2 is, and this is none: as in Envoy, it gets no answer.
pub(super) fn spoken(codec: Codec, seen: Seen) -> Option<HttpVersion> {
    match (codec, seen) {
        (Codec::Http1, _) => Some(HttpVersion::Http1),
        (Codec::Http2, Seen::Http2) => Some(HttpVersion::Http2),
        (Codec::Http2, _) => None,
        (Codec::Auto, seen) => Some(seen.http_version()),
    }
}

/// Returns after so long; never without a limit.
async fn passed(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}
