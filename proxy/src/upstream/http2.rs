//! An HTTP/2 connection to an endpoint: shared by as many requests as the endpoint allows.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::OnceCell;

use super::ConnectFailure;
use super::body::RequestBody;
use super::guise::Guise;
use super::io::{UpstreamIo, Watch};
use crate::cluster::connections::ConnectionPermit;
use crate::cluster::outlier::millis;
use crate::config::cluster::ClusterConfig;
use crate::gather::Gathered;
use crate::telemetry::session::Session;

/// A connection that requests share. It is in its pool before it is made, so that all who come meanwhile
/// wait for the same one.
#[derive(Debug, Default)]
pub(super) struct Http2Connection {
    made: OnceCell<Result<SendRequest<RequestBody>, ConnectFailure>>,
    active: Arc<AtomicU32>,
    max_streams: Arc<AtomicU32>,
    requests: AtomicU32,
    last_used: AtomicU64,
    is_retired: AtomicBool,
    /// On the scale of [`millis`]; 0: not made yet.
    made_at: AtomicU64,
    watch: OnceLock<Watch>,
    guise: Guise,
}

/// How many requests a connection is given before the peer has said how many streams it allows; RFC 9113 §6.5.2
/// recommends no fewer.
const INITIAL_MAX_STREAMS: u32 = 100;
/// How many of those are sent before: a peer that allows fewer refuses the others, and it says what it allows at once.
const UNTOLD_MAX_STREAMS: u32 = 1;

impl Http2Connection {
    pub(super) fn new(guise: Guise) -> Arc<Self> {
        let connection = Http2Connection {
            guise,
            ..Http2Connection::default()
        };
        connection
            .max_streams
            .store(UNTOLD_MAX_STREAMS, Ordering::Relaxed);
        Arc::new(connection)
    }

    /// Whether it shows the same.
    pub(super) fn has_guise(&self, guise: Guise) -> bool {
        self.guise == guise
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
        let is_worn = max_requests.is_some_and(|max| self.requests.load(Ordering::Relaxed) >= max);
        !self.is_over() && !is_worn && self.active.load(Ordering::Relaxed) < self.max_streams()
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
        // What the peer allows may be noticed only at the next request: a single one is taken for not told yet.
        let max_streams = match self.max_streams.load(Ordering::Relaxed) {
            UNTOLD_MAX_STREAMS => INITIAL_MAX_STREAMS,
            max => max,
        };
        max_streams.saturating_sub(self.active()).min(left)
    }

    /// How many requests it may have at once.
    fn max_streams(&self) -> u32 {
        match self.max_streams.load(Ordering::Relaxed) {
            // What is answered comes after what the peer allows: then it is what the peer has said.
            UNTOLD_MAX_STREAMS if self.last_used.load(Ordering::Relaxed) == 0 => {
                INITIAL_MAX_STREAMS
            }
            max => max,
        }
    }

    /// Whether no request will use it any more.
    pub(super) fn is_over(&self) -> bool {
        let is_closed = || match self.made.get() {
            Some(Ok(sender)) => sender.is_closed(),
            Some(Err(_)) => true,
            None => false,
        };
        self.is_retired.load(Ordering::Relaxed) || is_closed()
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
        (Stream(Arc::clone(self)), before)
    }

    /// The connection, where it has been made.
    pub(super) fn made(&self) -> Option<SendRequest<RequestBody>> {
        self.made.get()?.as_ref().ok().cloned()
    }

    /// The connection, made by the first who asks.
    pub(super) async fn sender(
        &self,
        make: impl Future<Output = Result<(UpstreamIo, ConnectionPermit), ConnectFailure>>,
        config: &ClusterConfig,
        to_failure: impl Fn(hyper::Error) -> ConnectFailure,
    ) -> Result<SendRequest<RequestBody>, ConnectFailure> {
        let made = self.made.get_or_init(|| async {
            let (io, permit) = make.await?;
            self.over(io, permit, config).await.map_err(to_failure)
        });
        made.await.clone()
    }

    async fn over(
        &self,
        mut io: UpstreamIo,
        permit: ConnectionPermit,
        config: &ClusterConfig,
    ) -> hyper::Result<SendRequest<RequestBody>> {
        let _ = self.watch.set(io.watch());
        io.hold(permit);
        io.used_by(&self.active);
        self.made_at
            .store(millis(Instant::now()), Ordering::Relaxed);
        let options = &config.http2;
        let (io, turns) = Gathered::over(io);
        let mut builder = Builder::new(turns);
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(config.bounds.max_header_bytes)
            .initial_stream_window_size(options.stream_window())
            .initial_connection_window_size(options.connection_window())
            .initial_max_send_streams(UNTOLD_MAX_STREAMS as usize)
            .keep_alive_interval(options.keepalive_interval)
            .keep_alive_while_idle(true);
        if let Some(timeout) = options.keepalive_timeout {
            builder.keep_alive_timeout(timeout);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        let max_streams = Arc::clone(&self.max_streams);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let ended = poll_fn(|context| {
                let polled = connection.as_mut().poll(context);
                if polled.is_pending() {
                    let max = connection.current_max_send_streams();
                    max_streams.store(u32::try_from(max).unwrap_or(u32::MAX), Ordering::Relaxed);
                }
                polled
            });
            if let Err(error) = ended.await {
                tracing::trace!(%error, "upstream connection ended");
            }
        });
        Ok(sender)
    }
}

/// A request on a shared connection; counted out when dropped.
#[derive(Debug)]
pub(super) struct Stream(Arc<Http2Connection>);

impl Stream {
    pub(super) fn connection(&self) -> &Http2Connection {
        &self.0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.0
            .last_used
            .store(millis(Instant::now()), Ordering::Relaxed);
    }
}
