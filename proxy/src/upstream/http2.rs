//! An HTTP/2 connection to an endpoint: shared by as many requests as the endpoint allows.

mod body;
mod exchange;
mod head;
mod streams;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::sync::OnceCell;

pub use self::body::Http2Body;
use self::streams::Streams;
use super::guise::Guise;
use super::io::{UpstreamIo, Watch};
use super::{ConnectFailure, HttpVersion};
use crate::clock;
use crate::cluster::connections::ConnectionPermit;
use crate::cluster::outlier::millis;
use crate::config::cluster::ClusterConfig;
use crate::config::http::Http2Options;
use crate::gather::{Gathered, Turns};
use crate::http2::keepalive::Keepalive;
use crate::telemetry::session::Session;

/// A connection that requests share. It is in its pool before it is made, so that all who come meanwhile
/// wait for the same one.
#[derive(Debug)]
pub(super) struct Http2Connection {
    made: OnceCell<Result<SendRequest<Bytes>, ConnectFailure>>,
    active: Arc<AtomicU32>,
    streams: Arc<Streams>,
    requests: AtomicU32,
    last_used: AtomicU64,
    is_retired: AtomicBool,
    /// On the scale of [`millis`]; 0: not made yet.
    made_at: AtomicU64,
    watch: OnceLock<Watch>,
    guise: Guise,
    carries: HttpVersion,
}

/// How many requests a connection is given before the peer has said how many streams it allows; RFC 9113 §6.5.2
/// recommends no fewer.
const INITIAL_MAX_STREAMS: u32 = 100;
/// The largest frame that is taken: the one that RFC 9113 has, section 6.5.2.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// What a stream may have written that the connection has not taken yet.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;
/// The library ends a connection on which it had to reset so many streams for what their peer had sent.
const MAX_LOCAL_RESETS: usize = 1024;

impl Http2Connection {
    /// One for requests of this version.
    pub(super) fn new(guise: Guise, carries: HttpVersion) -> Arc<Self> {
        Arc::new(Http2Connection {
            guise,
            carries,
            made: OnceCell::new(),
            active: Arc::default(),
            streams: Arc::default(),
            requests: AtomicU32::new(0),
            last_used: AtomicU64::new(0),
            is_retired: AtomicBool::new(false),
            made_at: AtomicU64::new(0),
            watch: OnceLock::new(),
        })
    }

    /// Whether it shows the same, and carries requests of this version.
    pub(super) fn is_for(&self, guise: Guise, version: HttpVersion) -> bool {
        self.guise == guise && self.carries == version
    }

    /// Of which version its requests are.
    pub(super) fn carries(&self) -> HttpVersion {
        self.carries
    }

    /// Whom it shows.
    pub(super) fn guise(&self) -> Guise {
        self.guise
    }

    /// Our own end of it, where that is known.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.watch.get()?.local
    }

    /// Its TLS.
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.watch.get()?.session.as_ref()
    }

    /// Whether one more request may use it.
    pub(super) fn has_room(&self, max_requests: Option<u32>) -> bool {
        !self.is_over() && !self.is_worn(max_requests) && self.active() < self.max_streams()
    }

    /// Whether as many requests have used it as may.
    pub(super) fn is_worn(&self, max_requests: Option<u32>) -> bool {
        max_requests.is_some_and(|max| self.requests.load(Ordering::Relaxed) >= max)
    }

    /// How many requests use it.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// How many more requests may use it now.
    pub(super) fn room(&self, max_requests: Option<u32>) -> u32 {
        if self.is_over() {
            return 0;
        }
        let carried = self.requests.load(Ordering::Relaxed);
        let left = max_requests.map_or(u32::MAX, |max| max.saturating_sub(carried));
        // A peer that allows one is taken for one that has not said yet.
        let max_streams = match self.streams.allowed() {
            streams::UNTOLD => INITIAL_MAX_STREAMS,
            max => max,
        };
        max_streams.saturating_sub(self.active()).min(left)
    }

    /// How many requests it may have at once.
    fn max_streams(&self) -> u32 {
        match self.streams.allowed() {
            // What is answered comes after what the peer allows: then it is what the peer has said.
            streams::UNTOLD if self.last_used.load(Ordering::Relaxed) == 0 => INITIAL_MAX_STREAMS,
            max => max,
        }
    }

    /// Whether no request will use it any more.
    pub(super) fn is_over(&self) -> bool {
        let has_failed = || matches!(self.made.get(), Some(Err(_)));
        self.is_retired.load(Ordering::Relaxed) || self.streams.are_over() || has_failed()
    }

    /// Whether it has been in use for longer than it may be.
    pub(super) fn is_too_old(&self, now: Instant, longest: Option<Duration>) -> bool {
        let made_at = self.made_at.load(Ordering::Relaxed);
        longest.is_some_and(|longest| {
            let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
            made_at != 0 && millis(now) >= made_at.saturating_add(longest)
        })
    }

    /// Whether the peer has closed it, as far as the kernel knows; asked where nothing is in flight that would tell.
    pub(super) fn is_closed_by_peer(&self) -> bool {
        self.active.load(Ordering::Relaxed) == 0
            && self.watch.get().is_some_and(|watch| watch.look_for_end())
    }

    /// Whether nobody has used it since.
    pub(super) fn is_idle_since(&self, since: Instant) -> bool {
        // One that was made ahead of need may not have been used at all.
        let last_used = self.last_used.load(Ordering::Relaxed);
        let last_used = last_used.max(self.made_at.load(Ordering::Relaxed));
        self.made.initialized() && self.active() == 0 && last_used < millis(since)
    }

    /// Gives it no more requests; those it has go on.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// Counts a request in; says how many came before.
    pub(super) fn begin(self: &Arc<Self>) -> (Stream, u32) {
        self.active.fetch_add(1, Ordering::Relaxed);
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let stream = Stream {
            connection: Arc::clone(self),
            is_open: false,
        };
        (stream, before)
    }

    /// Whether it has been made.
    pub(super) fn is_made(&self) -> bool {
        matches!(self.made.get(), Some(Ok(_)))
    }

    /// What opens a stream of it: for one request, since it keeps its last stream until that is open.
    fn opener(&self) -> Option<SendRequest<Bytes>> {
        self.made.get()?.as_ref().ok().cloned()
    }

    /// Makes the connection, where nobody has yet.
    pub(super) async fn make(
        &self,
        make: impl Future<Output = Result<(UpstreamIo, ConnectionPermit), ConnectFailure>>,
        config: &ClusterConfig,
        to_failure: impl Fn(h2::Error) -> ConnectFailure,
    ) -> Result<(), ConnectFailure> {
        let made = self.made.get_or_init(|| async {
            let (io, permit) = make.await?;
            self.over(io, permit, config).await.map_err(to_failure)
        });
        match made.await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.clone()),
        }
    }

    async fn over(
        &self,
        mut io: UpstreamIo,
        permit: ConnectionPermit,
        config: &ClusterConfig,
    ) -> Result<SendRequest<Bytes>, h2::Error> {
        let _ = self.watch.set(io.watch());
        io.hold(permit);
        io.used_by(&self.active);
        self.made_at
            .store(millis(Instant::now()), Ordering::Relaxed);
        let (io, turns) = Gathered::over(io);
        let (sender, mut connection) = builder(config, self.carries).handshake(io).await?;
        let keepalive = Keepalive::of(&config.http2, connection.ping_pong(), &turns);
        let streams = Arc::clone(&self.streams);
        tokio::spawn(drive(connection, turns, keepalive, streams));
        Ok(sender)
    }
}

/// A byte takes as many at most, in a head that is compressed (RFC 7541, appendix B).
const HUFFMAN_GROWTH: u32 = 4;

/// How connections are begun that carry requests of this version.
fn builder(config: &ClusterConfig, carries: HttpVersion) -> Builder {
    let (options, max_header_bytes) = match carries {
        HttpVersion::Http2 => (config.http2.clone(), config.bounds.max_header_bytes),
        // A head that is larger as HTTP/2 counts must not end what all share: the server's side has bounded it as one
        // of HTTP/1.1.
        HttpVersion::Http1 => {
            let most = config.bounds.max_header_bytes;
            (config.http2.shared(), most.saturating_mul(HUFFMAN_GROWTH))
        }
    };
    let options: &Http2Options = &options;
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .max_header_list_size(max_header_bytes)
        .initial_window_size(options.stream_window())
        .initial_connection_window_size(options.connection_window())
        .initial_max_send_streams(streams::UNTOLD as usize)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS));
    builder
}

/// The task of a connection: ends with it, or when its peer does not answer any more.
async fn drive(
    connection: Connection<Gathered<UpstreamIo>, Bytes>,
    turns: Turns,
    mut keepalive: Option<Keepalive>,
    streams: Arc<Streams>,
) {
    let ended = {
        let mut connection = pin!(connection);
        let mut reads = None;
        poll_fn(|context| {
            let polled = connection.as_mut().poll(context).map_err(Some);
            if polled.is_ready() {
                return polled;
            }
            turns.end(context);
            // What the peer allows changes only by what it says.
            if reads.replace(turns.reads()) != Some(turns.reads()) {
                streams.allow(connection.max_concurrent_send_streams());
            }
            match &mut keepalive {
                Some(keepalive) => keepalive.poll_silence(context).map(|()| {
                    streams.fall_silent();
                    Err(None)
                }),
                None => Poll::Pending,
            }
        })
        .await
    };
    streams.end();
    match ended {
        Ok(()) => {}
        Err(Some(error)) => tracing::trace!(%error, "upstream connection ended"),
        Err(None) => tracing::debug!("upstream connection ended: its peer does not answer"),
    }
}

/// A request on a shared connection; counted out when dropped.
#[derive(Debug)]
pub(super) struct Stream {
    connection: Arc<Http2Connection>,
    /// Whether it is one of those that the peer allows.
    is_open: bool,
}

impl Stream {
    pub(super) fn connection(&self) -> &Http2Connection {
        &self.connection
    }

    /// Whether the request is of HTTP/1.1.
    pub(super) fn carries_http1(&self) -> bool {
        self.connection.carries == HttpVersion::Http1
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.active.fetch_sub(1, Ordering::Relaxed);
        if self.is_open {
            connection.streams.close_one();
        }
        connection
            .last_used
            .store(millis(clock::now()), Ordering::Relaxed);
    }
}
