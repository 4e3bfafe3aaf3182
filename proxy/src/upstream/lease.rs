//! A connection lent to one request.
//!
//! HTTP/1: lent alone, given back when request and response have both ended, closed otherwise. HTTP/2:
//! shared. A connection that turns out to have been closed while it lay idle costs a fresh one, and never
//! an error: the request is as it was where `SendFailure` says that it was not sent, and [`Spare`] makes it anew where
//! that is no matter.

mod kept;
mod sharing;
mod spare;
mod wait;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use weft_proto::names;

use self::sharing::requests_may_share;
pub use self::sharing::{is_to_share, is_worthwhile, weigh};
pub use self::spare::Spare;
use self::wait::{Waited, wait_for_http1};
use super::body::RequestBody;
use super::error::ExchangeError;
use super::guise::Guise;
use super::http1::Http1Connection;
use super::http2::{Http2Connection, Stream};
use super::pool::Pool;
use super::response::UpstreamBody;
use super::{ConnectFailure, HttpVersion, Upstreams};
use crate::cluster::Cluster;
use crate::cluster::breaker::{Gauge, Overflow};
use crate::cluster::connections::{ConnectionPermit, Need};
use crate::cluster::endpoint::Endpoint;
use crate::cluster::stats::ClusterStats;
use crate::telemetry::session::Session;

/// A connection on loan.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    endpoint: Arc<Endpoint>,
    max_requests: Option<u32>,
    is_reused: bool,
}

#[derive(Debug)]
enum Connection {
    /// Boxed, here and in its pool: a pointer is what is moved from one to the other.
    Http1(Box<Http1Connection>),
    Http2(Stream),
}

/// Why there is no response.
#[derive(Debug)]
pub struct SendFailure {
    /// What went wrong.
    pub error: ExchangeError,
    /// Whether not a byte of the request was sent: then it is as it was.
    pub is_unsent: bool,
}

impl SendFailure {
    /// Whether the connection was closed before any of the response came.
    pub fn is_closed_early(&self) -> bool {
        self.error.is_closed_early()
    }

    /// Whether the peer of HTTP/2 says that it has not looked at the request.
    pub fn is_unprocessed(&self) -> bool {
        self.error.is_unprocessed()
    }

    pub(super) fn unsent(error: ExchangeError) -> Self {
        SendFailure {
            error,
            is_unsent: true,
        }
    }
}

/// A failure after which the request cannot be had again.
impl<E: Into<ExchangeError>> From<E> for SendFailure {
    fn from(error: E) -> Self {
        SendFailure {
            error: error.into(),
            is_unsent: false,
        }
    }
}

/// Whether a request may have to be sent again once there is a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its memory may be used for the response.
    Once,
    /// On a connection of HTTP/1.1 its head is left as it is.
    Again,
}

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Of which version the request is.
    pub version: HttpVersion,
    /// Whether a kept one will do.
    pub freshness: Freshness,
    /// Whom it shows.
    pub guise: Guise,
    /// Whether a request of HTTP/1.1 may be one of many on a connection of HTTP/2, where cluster and peer agree to that:
    /// see [`is_to_share`].
    pub may_share: bool,
}

impl Terms {
    /// A connection of HTTP/1.1 for this request alone; of HTTP/2 there are none.
    pub fn alone(version: HttpVersion, freshness: Freshness, guise: Guise) -> Self {
        Terms {
            version,
            freshness,
            guise,
            may_share: false,
        }
    }
}

/// Which connections will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// One that was used before is preferred.
    Any,
    /// Only one that was not.
    Fresh,
}

impl Lease {
    /// Whether requests have used it before.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// The version of HTTP that it speaks, whatever the request is of.
    pub fn version(&self) -> HttpVersion {
        match &self.connection {
            Connection::Http1(_) => HttpVersion::Http1,
            Connection::Http2(_) => HttpVersion::Http2,
        }
    }

    /// Whence its endpoint is reached, where that is known.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.connection {
            Connection::Http1(connection) => connection.local_address(),
            Connection::Http2(stream) => stream.connection().local_address(),
        }
    }

    /// The TLS of its connection, where that is in TLS.
    pub fn session(&self) -> Option<&Arc<Session>> {
        match &self.connection {
            Connection::Http1(connection) => connection.session(),
            Connection::Http2(stream) => stream.connection().session(),
        }
    }

    /// Sends the request; its body is taken, and sent while the response may already be coming. The head of one of
    /// HTTP/1.1 is its own until something of the response has come.
    pub async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
        wanted: Wanted,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        match &mut self.connection {
            Connection::Http1(connection) => pin!(connection.send(request, wanted)).await,
            Connection::Http2(stream) if stream.carries_http1() => {
                Box::pin(stream.send_http1(request)).await
            }
            Connection::Http2(stream) => pin!(stream.send(request)).await,
        }
    }

    /// Lends it no more; a shared connection goes on with what it has.
    pub fn retire(&self) {
        if let Connection::Http2(stream) = &self.connection {
            stream.connection().retire();
        }
    }

    /// Request and response have ended: the connection can carry another.
    pub fn finish(self, cluster: &Cluster) {
        if let Connection::Http1(mut connection) = self.connection {
            connection.end();
            let longest = cluster.config.max_connection_duration;
            let is_too_old =
                longest.is_some() && connection.is_too_old(std::time::Instant::now(), longest);
            let is_worn = self
                .max_requests
                .is_some_and(|max| connection.requests >= max);
            if is_worn {
                ClusterStats::count(&cluster.stats.connections_worn);
            } else if is_too_old {
                ClusterStats::count(&cluster.stats.connections_aged);
            } else if !connection.is_closed() {
                Pool::of(&self.endpoint).give_back(connection);
                cluster.breakers.counts().connection_freed();
            }
        }
    }
}

impl Upstreams {
    /// A connection for one request, kept or new; one that shows a client, only for that client.
    pub async fn lend(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        terms: Terms,
    ) -> Result<Lease, ConnectFailure> {
        let Terms {
            version,
            freshness,
            guise,
            may_share,
        } = terms;
        let shares = version == HttpVersion::Http1
            && may_share
            && requests_may_share(cluster, endpoint, guise);
        if !shares {
            self.preconnect_next(cluster, version, guise);
        }
        let (connection, is_reused) = match version {
            HttpVersion::Http1 if shares => {
                Box::pin(self.lend_shared(cluster, endpoint, freshness, guise)).await?
            }
            HttpVersion::Http1 => {
                pin!(self.lend_http1(cluster, endpoint, freshness, guise)).await?
            }
            HttpVersion::Http2 => {
                pin!(self.lend_http2(cluster, endpoint, (guise, version))).await?
            }
        };
        if is_reused {
            ClusterStats::count(&cluster.stats.reused);
        }
        Ok(Lease {
            connection,
            endpoint: Arc::clone(endpoint),
            max_requests: cluster.config.max_requests_per_connection,
            is_reused,
        })
    }

    async fn lend_http1(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        freshness: Freshness,
        guise: Guise,
    ) -> Result<(Connection, bool), ConnectFailure> {
        if freshness == Freshness::Any
            && let Some(connection) = self.idle_http1(cluster, endpoint, guise)
        {
            return Ok((connection, true));
        }
        // As in Envoy: who has no connection yet waits for one, also for one that is being made.
        let _pending = cluster.breakers.admit(Gauge::Pending)?;
        ClusterStats::count(&cluster.stats.pending);
        let permit = match cluster.admit_connection(endpoint, Need::Waiting) {
            Ok(permit) => permit,
            Err(_) => match Box::pin(wait_for_http1(cluster, endpoint, guise)).await? {
                Waited::Connection(connection) => return Ok((Connection::Http1(connection), true)),
                Waited::Permit(permit) => permit,
            },
        };
        self.preconnect(cluster, endpoint, HttpVersion::Http1, guise);
        // Boxed, as all that is rare and large here: most requests find a connection.
        let mut connection = Box::pin(self.make_http1(cluster, endpoint, permit, guise)).await?;
        connection.begin();
        Ok((Connection::Http1(connection), false))
    }

    /// One of this worker that is kept.
    fn idle_http1(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        guise: Guise,
    ) -> Option<Connection> {
        let longest = cluster.config.max_connection_duration;
        while let Some(mut connection) = Pool::of(endpoint).take_http1(guise) {
            let is_too_old =
                longest.is_some() && connection.is_too_old(std::time::Instant::now(), longest);
            if is_too_old {
                ClusterStats::count(&cluster.stats.connections_aged);
            } else if !connection.is_abandoned() {
                connection.begin();
                self.preconnect(cluster, endpoint, HttpVersion::Http1, guise);
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// A new connection of HTTP/1.
    pub(super) async fn make_http1(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        permit: ConnectionPermit,
        guise: Guise,
    ) -> Result<Box<Http1Connection>, ConnectFailure> {
        let io = self
            .dial(cluster, endpoint, Some(HttpVersion::Http1.alpn()), guise)
            .await?;
        ClusterStats::count(&cluster.stats.http1_connections);
        let mut connection = Http1Connection::over(io, permit, &cluster.config);
        connection.guise = guise;
        Ok(Box::new(connection))
    }

    async fn lend_http2(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        (guise, version): (Guise, HttpVersion),
    ) -> Result<(Connection, bool), ConnectFailure> {
        let (shared, need) = Pool::of(endpoint).share_http2(cluster, (guise, version));
        let (stream, before) = shared.begin();
        if version == HttpVersion::Http2 {
            self.preconnect(cluster, endpoint, version, guise);
        }
        if shared.is_made() {
            return Ok((Connection::Http2(stream), before > 0));
        }
        let _pending = cluster.breakers.admit(Gauge::Pending)?;
        ClusterStats::count(&cluster.stats.pending);
        let made = self.make_http2(cluster, endpoint, &shared, || {
            cluster.admit_connection(endpoint, need)
        });
        Box::pin(made).await?;
        Ok((Connection::Http2(stream), before > 0))
    }

    /// Makes a connection of HTTP/2, unless another does already.
    pub(super) async fn make_http2(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        shared: &Http2Connection,
        admit: impl FnOnce() -> Result<ConnectionPermit, Overflow>,
    ) -> Result<(), ConnectFailure> {
        let make = async {
            let permit = admit()?;
            let offered = match shared.carries() {
                HttpVersion::Http1 => names::ALPN_HTTP1_STREAMS,
                HttpVersion::Http2 => names::ALPN_HTTP2,
            };
            let io = self
                .dial(cluster, endpoint, Some(offered), shared.guise())
                .await?;
            if shared.carries() == HttpVersion::Http1 && !io.is_shared() {
                let address = endpoint.address;
                return Err(ConnectFailure::Declined { address });
            }
            ClusterStats::count(&cluster.stats.http2_connections);
            Ok((io, permit))
        };
        let to_failure = |error| http_failure(endpoint, error);
        shared.make(make, &cluster.config, to_failure).await
    }
}

fn http_failure(endpoint: &Endpoint, error: h2::Error) -> ConnectFailure {
    ConnectFailure::Http {
        address: endpoint.address,
        source: Arc::new(error),
    }
}
