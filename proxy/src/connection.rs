//! One downstream connection, from accept to end: where it was going, what it speaks, which filter chain
//! serves it.
//!
//! `listener` accepts and places it on a worker; here it becomes HTTP or opaque bytes.

mod detect;
mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod introduced;
mod io;
mod log;
mod proxied;
mod race;
mod requests;
mod streams;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use self::detect::{Seen, classify, first_words};
use self::io::DownstreamIo;
use self::log::Line;
use self::race::{Opening, Outcome};
use self::requests::spoken;
use crate::cluster::stats::ClusterStats;
use crate::config::listener::{OriginalSourceOf, ProxyHeader, TcpConfig, TransportProtocol};
use crate::config::upstream_socket::ClientSource;
use crate::drain::Drain;
use crate::proxy_protocol::Endpoints;
use crate::snapshot::Snapshot;
use crate::snapshot::chain::{Chain, Service};
use crate::snapshot::choice::Arrival;
use crate::snapshot::listener::{Listener, ListenerState, Verdict};
use crate::tcp::{self, Caller, Dialled, TcpFailure, gate};
use crate::telemetry::report::Downstream;
use crate::upstream::environment::Environment;
use crate::upstream::explain;
use crate::wire::Bare;

/// What the next connection is numbered, in access logs.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A connection that has just been accepted.
pub struct Accepted {
    /// Its bytes, which are sent without delay, and never waited for by a call. Not registered with a worker yet.
    pub stream: std::net::TcpStream,
    /// The client.
    pub peer: SocketAddr,
    /// Where it arrived.
    pub local: SocketAddr,
    /// The listener that accepted it, as it was then.
    pub listener: Arc<Listener>,
}

/// A connection on its way to a chain.
struct Connection {
    environment: Arc<Environment>,
    snapshot: Arc<Snapshot>,
    listener: Arc<Listener>,
    /// The client.
    peer: SocketAddr,
    /// Whoever made the connection: the client, or a proxy before us that named it.
    direct_peer: SocketAddr,
    local: SocketAddr,
    /// Where it was going, where it was redirected or passed on by another proxy.
    original_destination: Option<SocketAddr>,
    /// The client's address, where connections to upstreams are to have it.
    client_source: Option<ClientSource>,
    drain: Drain,
    /// What the listener's log will say of it, where it has one.
    line: Option<Box<Line>>,
}

/// Serves a connection to its end.
pub async fn serve(environment: Arc<Environment>, accepted: Accepted, drain: Drain) {
    let _open = (drain.token(), environment.drain.token());
    let Accepted {
        stream,
        peer: direct_peer,
        local,
        listener: bound,
    } = accepted;
    let snapshot = environment.snapshot.load_full();
    let newer = snapshot.listeners.get(&bound.config.name).cloned();
    let bound = newer.unwrap_or(bound);
    let mut original_destination = original_destination(&bound, &stream, local);
    if original_destination == Some(local) && is_loop(&bound, local) {
        ClusterStats::count(&bound.live.loops_refused);
        return tracing::debug!(peer = %direct_peer, "connection refused: it was not redirected here");
    }
    let mut first = match bound.config.proxy_header {
        None => first_words(&stream),
        Some(_) => Ok(BytesMut::new()),
    };
    let mut stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection was lost"),
    };
    let mut endpoints = None;
    if let Some(expected) = &bound.config.proxy_header {
        let _opening = Opened::begin(&bound);
        let said = said_by_proxy((&bound, expected), &mut stream, direct_peer, &drain).await;
        let Some(said) = said else { return };
        endpoints = said.0;
        first = Ok(said.1);
    }
    let peer = endpoints.map_or(direct_peer, |endpoints| endpoints.source);
    let client_source = client_source(&bound, peer, direct_peer);
    original_destination = endpoints
        .map(|endpoints| endpoints.destination)
        .or(original_destination);
    let listener = original_destination
        .filter(|_| bound.config.use_original_destination)
        .and_then(|destination| snapshot.virtual_listener(destination).cloned())
        .unwrap_or(bound);
    let Some(_counted) = Counted::admit(&listener) else {
        return tracing::debug!(peer = %direct_peer, "connection refused: its listener has as many as it may");
    };
    let mut connection = Connection {
        environment,
        snapshot,
        listener,
        peer,
        direct_peer,
        local,
        original_destination,
        client_source,
        drain,
        line: None,
    };
    connection.begin_line();
    match first {
        Ok(first) => connection.open(stream, first).await,
        Err(error) => tracing::debug!(peer = %connection.peer, %error, "the client has gone"),
    }
}

/// What a proxy before us says of the connection, and the bytes read behind that. `None`: it is not served.
async fn said_by_proxy(
    (listener, expected): (&Listener, &ProxyHeader),
    stream: &mut TcpStream,
    peer: SocketAddr,
    drain: &Drain,
) -> Option<(Option<Endpoints>, BytesMut)> {
    let read = tokio::select! {
        read = proxied::read_header(stream, expected) => read,
        () = drain.patience_over() => return None,
    };
    read.inspect_err(|error| {
        ClusterStats::count(&listener.live.proxy_headers_refused);
        tracing::debug!(%peer, error = explain(error), "connection refused");
    })
    .ok()
}

/// The address that connections to upstreams are to have, where they have the client's.
fn client_source(
    listener: &Listener,
    peer: SocketAddr,
    direct_peer: SocketAddr,
) -> Option<ClientSource> {
    let (whose, source) = listener.config.original_source?;
    let client = match whose {
        OriginalSourceOf::Client => peer,
        OriginalSourceOf::Peer => direct_peer,
    };
    Some(source.of(client.ip().to_canonical()))
}

/// A connection among those of its listener; counted out when dropped.
struct Counted(Arc<ListenerState>);

impl Counted {
    /// `None`: the listener has as many as it may.
    fn admit(listener: &Listener) -> Option<Self> {
        let live = Arc::clone(&listener.live);
        let open = live.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(live);
        if listener
            .config
            .max_connections
            .is_some_and(|max| open >= max)
        {
            ClusterStats::count(&counted.0.overflown);
            return None;
        }
        ClusterStats::count(&counted.0.accepted);
        Some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of which it is not known yet what it is; counted out when dropped.
struct Opened<'a>(&'a ListenerState);

impl<'a> Opened<'a> {
    fn begin(listener: &'a Listener) -> Self {
        listener.live.opening.fetch_add(1, Ordering::Relaxed);
        Opened(&listener.live)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a connection that is going where it arrived would come back for ever: not where the kernel lets in what is
/// for others, save for what was meant for the listener's own port.
fn is_loop(listener: &Listener, local: SocketAddr) -> bool {
    let own_port = |address: &SocketAddr| address.port() == local.port();
    !listener.config.is_transparent || listener.config.addresses.iter().any(own_port)
}

/// Where a redirected connection was going (`SO_ORIGINAL_DST`); of one that was not, the kernel knows nothing.
fn original_destination(
    listener: &Listener,
    stream: &std::net::TcpStream,
    local: SocketAddr,
) -> Option<SocketAddr> {
    if !listener.config.use_original_destination {
        return None;
    }
    if listener.config.is_transparent {
        return Some(local);
    }
    let socket = socket2::SockRef::from(stream);
    let found = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    // Without redirection the connection was going where it arrived.
    Some(
        found
            .ok()
            .and_then(|address| address.as_socket())
            .unwrap_or(local),
    )
}

impl Connection {
    fn destination(&self) -> SocketAddr {
        self.original_destination.unwrap_or(self.local)
    }

    /// Finds the chain, by destination alone where that is enough, else by the first bytes.
    ///
    /// What a connection needs only to be opened, and what only some connections need, is boxed here and further on: the
    /// room for all that is awaited in place is held by every connection for as long as it lasts.
    async fn open(self, stream: TcpStream, first: BytesMut) {
        if !self.listener.depends_on_first_bytes() {
            let arrival = self.arrival(None, &[], None);
            let chain = self.listener.chain(&arrival).cloned();
            return match chain {
                Some(chain) => self.serve_unseen(chain, stream, first.freeze()).await,
                None => self.refuse(None),
            };
        }
        let opaque = self.opaque_chain();
        let (outcome, stream, first) = match classify(&first) {
            Some(seen) => (Outcome::ClientSpoke(seen, None), stream, first.freeze()),
            None => {
                let opening = Opening {
                    connection: &self,
                    opaque: opaque.as_ref().map(|(_, config)| &**config),
                };
                let _opening = Opened::begin(&self.listener);
                Box::pin(opening.run(stream, first)).await
            }
        };
        match outcome {
            Outcome::Ended => {}
            Outcome::ClientSpoke(Seen::Tls, dialled) => {
                self.listener.live.remember(Verdict::Tls);
                let secured = Box::pin(self.open_tls(stream, first, dialled)).await;
                if let Some(secured) = secured {
                    secured.serve().await;
                }
            }
            Outcome::ClientSpoke(seen, dialled) => {
                self.listener.live.remember(seen.verdict());
                self.serve_raw(seen, stream, first, dialled).await;
            }
            Outcome::ServerSpoke(dialled) => {
                self.listener.live.remember(Verdict::ServerFirst);
                if let Some((chain, config)) = opaque {
                    let io = DownstreamIo::plain(first, stream);
                    let proxied = self.proxy(io, (&chain, &config), Some(Ok(dialled)), None);
                    Box::pin(proxied).await;
                }
            }
        }
    }

    /// The chain that opaque bytes in the clear would take, where there is one.
    fn opaque_chain(&self) -> Option<(Arc<Chain>, Arc<TcpConfig>)> {
        let arrival = self.arrival(Some(TransportProtocol::Raw), &[], None);
        let chain = self.listener.chain(&arrival)?;
        match &chain.service {
            Service::Tcp(config) if chain.tls.is_none() => {
                Some((Arc::clone(chain), Arc::clone(config)))
            }
            _ => None,
        }
    }

    fn arrival<'a>(
        &self,
        transport: Option<TransportProtocol>,
        application_protocols: &'a [&'a str],
        server_name: Option<&'a str>,
    ) -> Arrival<'a> {
        Arrival {
            destination: self.destination(),
            source: self.peer,
            direct_source: self.direct_peer.ip(),
            transport,
            application_protocols,
            server_name,
        }
    }

    /// By a chain that was chosen without a look at the bytes.
    async fn serve_unseen(self, chain: Arc<Chain>, stream: TcpStream, first: Bytes) {
        if chain.tls.is_some() {
            let secured = Box::pin(self.terminate(chain, stream, first)).await;
            if let Some(secured) = secured {
                secured.serve().await;
            }
            return;
        }
        let io = DownstreamIo::plain(first, stream);
        match &chain.service {
            Service::Tcp(config) => {
                let config = Arc::clone(config);
                Box::pin(self.proxy(io, (&chain, &config), None, None)).await;
            }
            Service::Http(service) => {
                let service = Arc::clone(service);
                self.serve_http_of_any_version(io, chain, service, None)
                    .await;
            }
        }
    }

    /// Bytes in the clear, of which the first have been seen.
    async fn serve_raw(
        self,
        seen: Seen,
        stream: TcpStream,
        first: Bytes,
        dialled: Option<Result<Dialled, TcpFailure>>,
    ) {
        let arrival = self.arrival(
            Some(TransportProtocol::Raw),
            seen.application_protocols(),
            None,
        );
        let Some(chain) = self.listener.chain(&arrival).cloned() else {
            return self.refuse(Some(seen));
        };
        if chain.tls.is_some() {
            return self.refuse(Some(seen));
        }
        let io = DownstreamIo::plain(first, stream);
        match &chain.service {
            Service::Tcp(config) => {
                let config = Arc::clone(config);
                Box::pin(self.proxy(io, (&chain, &config), dialled, None)).await;
            }
            Service::Http(service) => {
                let service = Arc::clone(service);
                drop(dialled);
                let managed = self.managed(&service, None);
                match spoken(service.config.codec, seen) {
                    Some(version) => {
                        let service = (service, managed);
                        self.serve_http(io, chain, service, version.into(), None)
                            .await;
                    }
                    None => managed.end_without_http2(),
                }
            }
        }
    }

    /// Opaque bytes, on what was dialled ahead where something was.
    async fn proxy(
        mut self,
        io: impl AsyncRead + AsyncWrite + Bare + Unpin,
        (chain, config): (&Chain, &TcpConfig),
        dialled: Option<Result<Dialled, TcpFailure>>,
        peer: Option<tls::Peer>,
    ) {
        let downstream = self.downstream(peer.as_ref());
        let counters = &self.environment.counters;
        let _passed = match gate::pass(&chain.gates, &downstream, counters).await {
            Ok(passed) => passed,
            Err(denied) => return self.deny(denied),
        };
        let dialled = match dialled {
            Some(dialled) => dialled,
            None => self.dial(config, || Arc::clone(&downstream)).await,
        };
        if let Some(line) = &mut self.line {
            line.leave_to_bytes();
        }
        tcp::proxy(io, dialled, config, downstream, &self.environment).await;
    }

    async fn dial(
        &self,
        config: &TcpConfig,
        describe: impl FnOnce() -> Arc<Downstream>,
    ) -> Result<Dialled, TcpFailure> {
        let upstreams = &self.environment.upstreams;
        let caller = Caller {
            ends: Endpoints {
                source: self.peer,
                destination: self.destination(),
            },
            original_destination: self.original_destination,
            source: self.client_source,
        };
        tcp::dial(config, &self.snapshot, caller, upstreams, describe).await
    }

    fn downstream(&mut self, peer: Option<&tls::Peer>) -> Arc<Downstream> {
        let downstream = self.described(peer);
        if let Some(line) = &mut self.line {
            line.describe(&downstream);
        }
        downstream
    }

    fn described(&self, peer: Option<&tls::Peer>) -> Arc<Downstream> {
        Arc::new(Downstream {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            listener: Arc::clone(&self.listener.config.name),
            direction: self.listener.config.direction,
            peer: self.peer,
            direct_peer: self.direct_peer,
            local: self.destination(),
            principal: peer.and_then(|peer| peer.principal.clone()),
            server_name: peer.and_then(|peer| peer.server_name.clone()),
            session: peer.and_then(|peer| peer.session.clone()),
            access_logs: Arc::clone(&self.listener.config.access_logs),
        })
    }
}
