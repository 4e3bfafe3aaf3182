//! Opaque connections to another sidecar that share one connection with TLS, each as a stream of it.
//!
//! By ALPN a sidecar says that it would, and its peer that it does: whoever does not gets a connection of its own for each, as
//! ever, and so does who can be reached over a local channel. Kept in the endpoint's pool, by worker.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use http::{Method, Request, Uri};
use parking_lot::Mutex;

use super::dial::Opened;
use super::guise::Guise;
use super::io::UpstreamIo;
use super::pool::Pool;
use super::{ConnectFailure, Upstreams, shard};
use crate::cluster::Cluster;
use crate::cluster::endpoint::{Endpoint, EndpointTransport};
use crate::cluster::stats::ClusterStats;
use crate::config::Network;
use crate::config::cluster::Sharing;
use crate::gather::Gathered;
use crate::stream::{self, MAX_STREAMS, StreamIo};
use crate::telemetry::session::Session;

/// The peer is asked that often whether it is still there, and must have answered by the next time.
const BEAT: Duration = Duration::from_secs(10);
/// A connection that has carried nothing for so many beats is given up.
const IDLE_BEATS: u32 = 6;

/// A connection for opaque bytes.
#[derive(Debug)]
pub enum Opaque {
    /// For nobody else.
    Own(UpstreamIo),
    /// A stream of one that others share.
    Stream(Box<SharedStream>),
}

/// Those to one endpoint.
#[derive(Debug)]
pub(super) struct SharedConnections {
    shards: Box<[Shard]>,
}

/// Those of one worker.
#[derive(Debug, Default)]
struct Shard {
    open: Mutex<Vec<Arc<SharedConnection>>>,
    /// Held by who makes one, while the others wait for it.
    making: tokio::sync::Mutex<()>,
    /// Whether the last one that was made is shared with nobody: then nobody waits for the next.
    is_declined: AtomicBool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct SharedConnection {
    /// `None`: no more streams are opened.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    active: AtomicU32,
    local: Option<SocketAddr>,
    session: Option<Arc<Session>>,
}

/// A stream; counted out when dropped.
#[derive(Debug)]
pub struct SharedStream {
    /// Its bytes.
    pub io: StreamIo,
    connection: Arc<SharedConnection>,
    stats: Arc<ClusterStats>,
}

impl SharedStream {
    /// Our own end of the connection.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.connection.local
    }

    /// Its TLS.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.connection.session.as_ref()
    }
}

impl Drop for SharedStream {
    fn drop(&mut self) {
        self.connection.active.fetch_sub(1, Ordering::Relaxed);
        // Who has ended it, and its bytes, are for who has copied them.
        self.stats.connection_ended(false, true);
    }
}

impl SharedConnections {
    pub(super) fn new() -> Self {
        SharedConnections {
            shards: (0..shard::count()).map(|_| Shard::default()).collect(),
        }
    }

    fn own(&self) -> &Shard {
        // Who is no worker, and workers of a pool that is older than they are, share the first.
        self.shards.get(shard::current()).unwrap_or(&self.shards[0])
    }
}

impl Shard {
    /// A stream of a connection that has room for it.
    fn stream(&self, request: &Request<()>, stats: &Arc<ClusterStats>) -> Option<SharedStream> {
        let mut open = self.open.lock();
        open.retain(|connection| !connection.is_over());
        open.iter().find_map(|each| each.stream(request, stats))
    }
}

impl SharedConnection {
    /// Begins to share a connection whose peer has agreed to that.
    async fn over(io: UpstreamIo) -> Result<Arc<Self>, h2::Error> {
        let watch = io.watch();
        let (io, turns) = Gathered::over(io);
        let (sender, mut connection) = stream::client().handshake(io).await?;
        let beat = connection.ping_pong();
        let connection = turns.of(connection);
        let shared = Arc::new(SharedConnection {
            sender: Mutex::new(Some(sender)),
            active: AtomicU32::new(0),
            local: watch.local,
            session: watch.session,
        });
        // Ends with the connection, which ends with the pool and its last stream.
        let keeper = keep(beat, Arc::downgrade(&shared));
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::trace!(%error, "shared connection ended");
                    }
                }
                () = keeper => tracing::debug!("shared connection ended: its peer does not answer"),
            }
        });
        Ok(shared)
    }

    fn is_over(&self) -> bool {
        self.sender.lock().is_none()
    }

    /// Opens no more streams; those that are open go on.
    fn retire(&self) {
        *self.sender.lock() = None;
    }

    /// A stream, where there is room for it. What is written to it is sent with its head.
    fn stream(
        self: &Arc<Self>,
        request: &Request<()>,
        stats: &Arc<ClusterStats>,
    ) -> Option<SharedStream> {
        let mut sender = self.sender.lock();
        let opener = sender.as_mut()?;
        // Nobody waits: where the last one has no room yet, there is none for another.
        match opener.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                *sender = None;
                return None;
            }
            Poll::Pending => return None,
        }
        let allowed = u32::try_from(opener.current_max_send_streams()).unwrap_or(u32::MAX);
        if self.active.load(Ordering::Relaxed) >= allowed.min(MAX_STREAMS) {
            return None;
        }
        let Ok((answer, to_peer)) = opener.send_request(request.clone(), false) else {
            *sender = None;
            return None;
        };
        self.active.fetch_add(1, Ordering::Relaxed);
        Some(SharedStream {
            io: StreamIo::asked(answer, to_peer),
            connection: Arc::clone(self),
            stats: Arc::clone(stats),
        })
    }
}

/// Returns when the peer does not answer any more. Gives the connection up when it has not been used for long.
async fn keep(beat: Option<PingPong>, shared: Weak<SharedConnection>) {
    let Some(mut beat) = beat else {
        return std::future::pending().await;
    };
    let mut idle = 0;
    loop {
        tokio::time::sleep(BEAT).await;
        if let Some(shared) = shared.upgrade() {
            idle = match shared.active.load(Ordering::Relaxed) {
                0 => idle + 1,
                _ => 0,
            };
            if idle >= IDLE_BEATS {
                shared.retire();
            }
        }
        let answered = tokio::time::timeout(BEAT, beat.ping(Ping::opaque())).await;
        match answered {
            Ok(Ok(_)) => {}
            // The connection itself says what is wrong with it.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => {
                if let Some(shared) = shared.upgrade() {
                    shared.retire();
                }
                return;
            }
        }
    }
}

impl Upstreams {
    /// A connection for opaque bytes: a stream of a shared one where cluster and peer agree to that.
    pub async fn dial_opaque(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        guise: Guise,
    ) -> Result<Opaque, ConnectFailure> {
        let may_share =
            cluster.config.sharing == Sharing::Always && is_to_sidecar(cluster, endpoint, guise);
        if !may_share || names_protocols(endpoint) {
            let io = self.dial(cluster, endpoint, None, guise).await?;
            return Ok(Opaque::Own(io));
        }
        let shard = Pool::of(endpoint).shared().own();
        let request = request(endpoint.address);
        let stats = &cluster.stats;
        if let Some(stream) = shard.stream(&request, stats) {
            ClusterStats::count(&stats.connections);
            return Ok(Opaque::Stream(Box::new(stream)));
        }
        // Boxed, as it is rare and large.
        Box::pin(self.make_shared(cluster, endpoint, guise, (shard, request))).await
    }

    async fn make_shared(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        guise: Guise,
        (shard, request): (&Shard, Request<()>),
    ) -> Result<Opaque, ConnectFailure> {
        let stats = &cluster.stats;
        let mut turn = None;
        if !shard.is_declined.load(Ordering::Relaxed) {
            let limit = cluster.config.connect_timeout;
            turn = tokio::time::timeout(limit, shard.making.lock()).await.ok();
            if let Some(stream) = shard.stream(&request, stats) {
                ClusterStats::count(&stats.connections);
                return Ok(Opaque::Stream(Box::new(stream)));
            }
            if shard.is_declined.load(Ordering::Relaxed) {
                turn = None;
            }
        }
        let opened = self.dial_to_share(cluster, endpoint, guise).await?;
        let io = match opened {
            Opened::Own(io) => {
                shard.is_declined.store(true, Ordering::Relaxed);
                return Ok(Opaque::Own(io));
            }
            Opened::Shared(io) => io,
        };
        let address = endpoint.address;
        let failed = |error: h2::Error| ConnectFailure::Io {
            address,
            source: Arc::new(std::io::Error::other(error)),
        };
        let connection = SharedConnection::over(io).await.map_err(failed)?;
        let stream = connection.stream(&request, stats);
        let stream = stream.ok_or_else(|| failed(h2::Reason::REFUSED_STREAM.into()))?;
        shard.is_declined.store(false, Ordering::Relaxed);
        shard.open.lock().push(connection);
        drop(turn);
        Ok(Opaque::Stream(Box::new(stream)))
    }
}

/// Whether the peer can be asked: it is a sidecar of the mesh, by an address that is for all alike.
pub(super) fn is_to_sidecar(cluster: &Cluster, endpoint: &Endpoint, guise: Guise) -> bool {
    let EndpointTransport::Tls(transport) = &endpoint.transport else {
        return false;
    };
    guise.is_shared() && cluster.config.network == Network::Sandbox && transport.config.is_of_mesh()
}

/// Whether it says what will be spoken, which is not known of opaque bytes.
fn names_protocols(endpoint: &Endpoint) -> bool {
    let transport = &endpoint.transport;
    matches!(transport, EndpointTransport::Tls(tls) if !tls.config.alpn.is_empty())
}

/// Who is asked for is whom the connection has reached: there is nobody else behind it.
fn request(address: SocketAddr) -> Request<()> {
    let authority = http::uri::Authority::try_from(address.to_string());
    let uri = authority.map(Uri::from).unwrap_or_default();
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri;
    request
}
