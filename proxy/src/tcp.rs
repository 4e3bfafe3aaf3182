//! Opaque bytes: one downstream connection, one upstream connection, copied both ways.
//!
//! `connection` hands over the client's bytes, and where it has already dialled (nobody must wait for
//! detection) the upstream connection, too.

pub mod copy;
pub mod gate;
mod splice;
pub mod tunnel;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::either::Either;

use self::copy::{FirstEnd, Transfer};
use self::tunnel::{Asked, HeldStream, TunnelIo};
use crate::cluster::breaker::Overflow;
use crate::cluster::connections::{ConnectionPermit, Need};
use crate::cluster::endpoint::{Active, Endpoint};
use crate::cluster::hash::xxhash;
use crate::cluster::outlier::Outcome;
use crate::cluster::stats::ClusterStats;
use crate::cluster::{Cluster, NoEndpoint, Pick};
use crate::config::listener::{TcpConfig, TcpTarget};
use crate::config::upstream_socket::ClientSource;
use crate::proxy_protocol::Endpoints;
use crate::random;
use crate::snapshot::Snapshot;
use crate::telemetry::report::{Downstream, ResponseFlags, TcpReport, Upstream};
use crate::telemetry::session::Session;
use crate::telemetry::tunnels::TcpEvent;
use crate::upstream::environment::Environment;
use crate::upstream::guise::Guise;
use crate::upstream::io::UpstreamIo;
use crate::upstream::shared::Opaque;
use crate::upstream::{ConnectFailure, Upstreams, explain};
use crate::wire::{Bare, Wire};

/// Why there is no upstream connection.
#[derive(Debug, thiserror::Error)]
pub enum TcpFailure {
    /// The configuration names a cluster that does not exist.
    #[error("cluster {0} does not exist")]
    NoCluster(Arc<str>),
    /// No endpoint may be used.
    #[error("cluster {cluster} has no endpoint for this connection")]
    NoEndpoint {
        /// The cluster.
        cluster: Arc<str>,
        /// Why.
        source: NoEndpoint,
    },
    /// The circuit breaker refuses.
    #[error("circuit breaker of cluster {cluster}")]
    Overflow {
        /// The cluster.
        cluster: Arc<str>,
        /// What there is too much of.
        source: Overflow,
    },
    /// It could not be connected to.
    #[error("cluster {cluster} cannot be reached")]
    Connect {
        /// The cluster.
        cluster: Arc<str>,
        /// The endpoint.
        endpoint: Arc<Endpoint>,
        /// Why.
        source: ConnectFailure,
    },
}

impl TcpFailure {
    fn flag(&self) -> ResponseFlags {
        match self {
            TcpFailure::NoCluster(_) => ResponseFlags::NO_CLUSTER,
            TcpFailure::NoEndpoint { .. } => ResponseFlags::NO_HEALTHY_UPSTREAM,
            TcpFailure::Overflow { .. } => ResponseFlags::UPSTREAM_OVERFLOW,
            // As in Envoy: it has been tried as often as it may be.
            TcpFailure::Connect { .. } => {
                let mut flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
                flags.add(ResponseFlags::UPSTREAM_RETRY_LIMIT);
                flags
            }
        }
    }

    fn cluster(&self) -> Arc<str> {
        match self {
            TcpFailure::NoCluster(cluster)
            | TcpFailure::NoEndpoint { cluster, .. }
            | TcpFailure::Overflow { cluster, .. }
            | TcpFailure::Connect { cluster, .. } => Arc::clone(cluster),
        }
    }
}

/// An upstream connection for a downstream one.
#[derive(Debug)]
pub struct Dialled {
    /// Its bytes.
    pub io: ServerIo,
    /// What the server has said already.
    pub said: Bytes,
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    held: (Held, Active),
}

/// The bytes of a server: a connection of their own, or a tunnel.
pub type ServerIo = Either<UpstreamIo, TunnelIo>;

impl Bare for ServerIo {
    fn bare(&mut self) -> Option<(Bytes, &Wire)> {
        match self {
            Either::Left(io) => io.bare(),
            Either::Right(_) => None,
        }
    }
}

/// What an upstream connection counts among.
#[derive(Debug)]
enum Held {
    /// A connection of its own.
    Connection { _permit: ConnectionPermit },
    /// A stream, on a connection that counts for itself.
    Stream { _stream: Box<HeldStream> },
}

impl Dialled {
    fn new(
        io: ServerIo,
        cluster: &Arc<Cluster>,
        endpoint: Arc<Endpoint>,
        held: (Held, Active),
    ) -> Self {
        Dialled {
            io,
            said: Bytes::new(),
            cluster: Arc::clone(cluster),
            endpoint,
            held,
        }
    }

    /// The TLS of a connection of its own.
    fn session(&self) -> Option<Arc<Session>> {
        match &self.io {
            Either::Left(io) => io.session().map(Arc::new),
            Either::Right(TunnelIo::Shared(stream)) => stream.session().cloned(),
            Either::Right(_) => None,
        }
    }

    /// Our own end of its connection. Of a tunnel nobody asks: its connection is somebody else's.
    fn local_address(&self) -> Option<SocketAddr> {
        match &self.io {
            Either::Left(io) => io.local_address(),
            Either::Right(TunnelIo::Shared(stream)) => stream.local_address(),
            Either::Right(_) => None,
        }
    }

    /// Who is at its other end.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Its bytes, and what is to be held as long as they flow.
    pub fn into_parts(self) -> (ServerIo, impl Send + 'static) {
        (self.io, self.held)
    }
}

/// How often another endpoint is tried where one cannot be connected to; nothing has been sent yet.
const CONNECT_ATTEMPTS: usize = 2;

/// Whose bytes are to be proxied.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The ends of its connection.
    pub ends: Endpoints,
    /// Where it was going before it was redirected.
    pub original_destination: Option<SocketAddr>,
    /// Its address, where the connection to the upstream is to have it.
    pub source: Option<ClientSource>,
}

/// Dials the upstream of a chain; `describe` says what is known of the client, for tunnels.
pub async fn dial(
    config: &TcpConfig,
    snapshot: &Snapshot,
    caller: Caller,
    upstreams: &Upstreams,
    describe: impl FnOnce() -> Arc<Downstream>,
) -> Result<Dialled, TcpFailure> {
    let (name, subset) = match &config.target {
        TcpTarget::Cluster(name) => (Some(name), &config.subset),
        TcpTarget::Weighted(clusters) => {
            let chosen = clusters.choose(random::draw().into());
            (chosen.target.fixed(), &chosen.subset)
        }
    };
    let hash = config
        .hashes_source
        .then(|| xxhash(0, caller.ends.source.ip().to_string().as_bytes()));
    let cluster = name.and_then(|name| snapshot.clusters.get(name));
    let cluster =
        cluster.ok_or_else(|| TcpFailure::NoCluster(name.map_or_else(Arc::default, Arc::clone)))?;
    let tunnel = config.tunnel.as_ref();
    let asked = tunnel.map(|tunnel| Asked::new(tunnel, config, describe()));
    let mut tried = vec![];
    loop {
        let pick = Pick {
            original_destination: caller.original_destination,
            avoid: &tried,
            hash,
            subset: subset.as_deref(),
            ..Pick::at(Instant::now())
        };
        let guise = Guise::of(&cluster.config, caller.ends, caller.source);
        let dialled = match &asked {
            None => dial_picked(cluster, pick, guise, upstreams).await,
            // Boxed, as it is rare.
            Some(asked) => Box::pin(tunnel::open(cluster, pick, guise, upstreams, asked)).await,
        };
        match dialled {
            // Who has refused a tunnel may have been told of it: that is for the client to ask again.
            Err(TcpFailure::Connect {
                endpoint, source, ..
            }) if !matches!(source, ConnectFailure::Tunnel { .. })
                && tried.len() + 1 < CONNECT_ATTEMPTS
                && !tried.contains(&endpoint.address) =>
            {
                tried.push(endpoint.address);
            }
            ended => {
                if matches!(ended, Err(TcpFailure::Connect { .. })) {
                    ClusterStats::count(&cluster.stats.connects_given_up);
                }
                return ended;
            }
        }
    }
}

/// The endpoint of a cluster that a connection is for.
fn picked(cluster: &Cluster, pick: Pick<'_>) -> Result<Arc<Endpoint>, TcpFailure> {
    cluster.pick(pick).map_err(|source| TcpFailure::NoEndpoint {
        cluster: Arc::clone(cluster.name()),
        source,
    })
}

/// One connection to an endpoint of a cluster, for opaque bytes of a client.
pub async fn dial_picked(
    cluster: &Arc<Cluster>,
    pick: Pick<'_>,
    guise: Guise,
    upstreams: &Upstreams,
) -> Result<Dialled, TcpFailure> {
    let endpoint = picked(cluster, pick)?;
    let permit = cluster
        .admit_connection(&endpoint, Need::Opaque)
        .map_err(|source| TcpFailure::Overflow {
            cluster: Arc::clone(cluster.name()),
            source,
        })?;
    let active = endpoint.state.begin();
    match upstreams.dial_opaque(cluster, &endpoint, guise).await {
        Ok(opened) => {
            cluster.record(&endpoint, Outcome::Success, Instant::now());
            let held = Held::Connection { _permit: permit };
            let io = match opened {
                Opaque::Own(io) => Either::Left(io),
                Opaque::Stream(stream) => Either::Right(TunnelIo::Shared(stream)),
            };
            Ok(Dialled::new(io, cluster, endpoint, (held, active)))
        }
        Err(source) => {
            cluster.record(&endpoint, Outcome::LocalOriginFailure, Instant::now());
            Err(TcpFailure::Connect {
                cluster: Arc::clone(cluster.name()),
                endpoint,
                source,
            })
        }
    }
}

/// Copies between a client and what was dialled for it, and reports it; where nothing was, closes the client's
/// connection and reports that.
pub async fn proxy(
    mut io: impl AsyncRead + AsyncWrite + Bare + Unpin,
    dialled: Result<Dialled, TcpFailure>,
    config: &TcpConfig,
    downstream: Arc<Downstream>,
    environment: &Environment,
) {
    let stats = environment
        .tunnels
        .of(&config.stat_prefix, &downstream.listener);
    stats.count(TcpEvent::Connections);
    let mut told = Told {
        report: report(&dialled, config, downstream),
        transfer: Transfer::counted_by(Arc::clone(&stats)).within(config.buffer_bytes),
        started: Instant::now(),
        bare: OnceLock::new(),
        environment,
    };
    environment.reports.tcp_open(&told.report);
    let mut dialled = match dialled {
        Ok(dialled) => dialled,
        Err(failure) => {
            if matches!(failure, TcpFailure::NoCluster(_)) {
                stats.count(TcpEvent::NoRoute);
            }
            tracing::debug!(error = explain(&failure), "connection closed: no upstream");
            return;
        }
    };
    // As in Envoy, a connection is a request; a stream has been counted as one already.
    if matches!(dialled.held, (Held::Connection { .. }, _)) {
        ClusterStats::count(&dialled.cluster.stats.tries);
    }
    let copied = async {
        let (idle, transfer) = (config.idle_timeout, &told.transfer);
        copy::pass_on(&mut io, &dialled.said, transfer).await?;
        if let Some((_, server)) = dialled.io.bare()
            && let Some((first, client)) = io.bare()
        {
            let _ = told.bare.set(Arc::clone(&dialled.cluster.stats));
            copy::between_sockets((client, first), server, idle, transfer).await
        } else {
            if matches!(dialled.io, Either::Right(TunnelIo::Shared(_))) {
                let _ = told.bare.set(Arc::clone(&dialled.cluster.stats));
            }
            copy::both_ways(io, dialled.io, idle, transfer).await
        }
    };
    let Some(copied) = within(longest(config), copied).await else {
        stats.count(TcpEvent::TooLong);
        told.report.flags.add(ResponseFlags::DURATION_TIMEOUT);
        return;
    };
    if let Err(error) = copied {
        tracing::trace!(%error, "connection ended");
        if error.kind() == std::io::ErrorKind::TimedOut {
            stats.count(TcpEvent::Idle);
        }
        if told.transfer.first_end() == Some(FirstEnd::ServerFailed) {
            told.report.flags.add(ResponseFlags::UPSTREAM_REMOTE_RESET);
        }
    }
}

/// How long a connection may last, drawn for this one.
fn longest(config: &TcpConfig) -> Option<Duration> {
    let (longest, jitter) = config.longest?;
    let share =
        f64::from(jitter.millionths()) / 1e6 * f64::from(random::draw()) / f64::from(u32::MAX);
    Some(longest.mul_f64(1.0 + share))
}

/// What something comes to, unless it takes longer.
async fn within<T>(longest: Option<Duration>, wait: impl Future<Output = T>) -> Option<T> {
    match longest {
        None => Some(wait.await),
        Some(longest) => tokio::time::timeout(longest, wait).await.ok(),
    }
}

fn report(
    dialled: &Result<Dialled, TcpFailure>,
    config: &TcpConfig,
    downstream: Arc<Downstream>,
) -> TcpReport {
    let endpoint = match dialled {
        Ok(dialled) => Some(&dialled.endpoint),
        Err(TcpFailure::Connect { endpoint, .. }) => Some(endpoint),
        Err(_) => None,
    };
    let failure = dialled.as_ref().err();
    TcpReport {
        downstream,
        start: SystemTime::now(),
        duration: std::time::Duration::ZERO,
        cluster: Some(match dialled {
            Ok(dialled) => Arc::clone(dialled.cluster.name()),
            Err(failure) => failure.cluster(),
        }),
        upstream: endpoint.map(|endpoint| Upstream {
            address: endpoint.address,
            local: dialled.as_ref().ok().and_then(Dialled::local_address),
            protocol: None,
            workload: Arc::clone(&endpoint.workload),
            is_mutual_tls: endpoint.transport.is_tls(),
            hostname: endpoint.hostname.clone(),
            session: dialled.as_ref().ok().and_then(Dialled::session),
        }),
        received_bytes: 0,
        sent_bytes: 0,
        flags: failure.map(TcpFailure::flag).unwrap_or_default(),
        reason: failure.map(|failure| explain(failure).into()),
        termination: None,
        access_logs: Arc::clone(&config.access_logs),
    }
}

/// Tells the end of a connection when dropped, so that it is told however it ends.
struct Told<'a> {
    report: TcpReport,
    transfer: Transfer,
    started: Instant,
    /// Where its bytes are counted that were moved from socket to socket.
    bare: OnceLock<Arc<ClusterStats>>,
    environment: &'a Environment,
}

impl Told<'_> {
    fn count_for(&self, stats: &ClusterStats) {
        let (received, sent) = (self.transfer.received(), self.transfer.sent());
        stats.bytes_written.fetch_add(received, Ordering::Relaxed);
        stats.bytes_read.fetch_add(sent, Ordering::Relaxed);
        let first = self.transfer.first_end();
        if matches!(first, Some(FirstEnd::Server | FirstEnd::ServerFailed)) {
            ClusterStats::count(&stats.connections_ended_by_peer);
            ClusterStats::count(&stats.connections_ended_in_use_by_peer);
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.report.duration = self.started.elapsed();
        self.report.received_bytes = self.transfer.received();
        self.report.sent_bytes = self.transfer.sent();
        if let Some(stats) = self.bare.get() {
            self.count_for(stats);
        }
        self.environment.reports.tcp_close(&self.report);
    }
}
