//! An HTTP/1.1 connection to an endpoint: one request at a time.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;

use super::body::RequestBody;
use super::guise::Guise;
use super::io::{Mark, Seen, UpstreamIo, Watch};
use crate::cluster::connections::ConnectionPermit;
use crate::config::cluster::{ClusterConfig, ConnectionBounds};
use crate::config::http::DEFAULT_MAX_HEADERS;
use crate::telemetry::session::Session;

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(super) struct Http1Connection {
    pub(super) sender: SendRequest<RequestBody>,
    /// Whether a request uses it: 1, or 0.
    users: Arc<AtomicU32>,
    /// How many requests it has carried, the current one included.
    pub(super) requests: u32,
    pub(super) idle_since: Instant,
    /// Whom it shows: only requests that would show the same may use it.
    pub(super) guise: Guise,
    made_at: Instant,
    watch: Watch,
}

/// The least that hyper buffers of a connection.
const MIN_BUFFER_BYTES: usize = 8 * 1024;
/// The most that is buffered of one: more gains nothing.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Nothing is waited for longer that only this process has to do.
const READY_WITHIN: Duration = Duration::from_secs(1);

impl Http1Connection {
    /// Speaks HTTP on a connection. It is driven by a task of its own, which ends with it; the socket holds the permit.
    pub(super) async fn over(
        mut io: UpstreamIo,
        permit: ConnectionPermit,
        config: &ClusterConfig,
    ) -> hyper::Result<Self> {
        let watch = io.watch();
        let users = Arc::default();
        io.hold(permit);
        io.used_by(&users);
        let names = config.http1.names;
        let ConnectionBounds {
            max_headers,
            max_header_bytes,
            buffer_bytes,
        } = config.bounds;
        let max_header_bytes = max_header_bytes as usize;
        let mut builder = Builder::new();
        builder
            .max_header_size(max_header_bytes)
            .max_buf_size(
                buffer_bytes
                    .clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)
                    .max(max_header_bytes),
            )
            .preserve_header_case(names.are_preserved())
            .title_case_headers(names.are_proper());
        // Told only where it is another than hyper's own: that one has its place on the stack.
        if max_headers != DEFAULT_MAX_HEADERS {
            builder.max_headers(max_headers);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::trace!(%error, "upstream connection ended");
            }
        });
        Ok(Http1Connection {
            sender,
            users,
            requests: 0,
            idle_since: Instant::now(),
            guise: Guise::default(),
            made_at: Instant::now(),
            watch,
        })
    }

    /// Another request uses it.
    pub(super) fn begin(&mut self) {
        self.requests += 1;
        self.users.store(1, Ordering::Relaxed);
    }

    /// The request is over.
    pub(super) fn end(&self) {
        self.users.store(0, Ordering::Relaxed);
    }

    /// Whether it has been in use for longer than it may be.
    pub(super) fn is_too_old(&self, now: Instant, longest: Option<Duration>) -> bool {
        longest.is_some_and(|longest| now.saturating_duration_since(self.made_at) >= longest)
    }

    /// What has been written to it so far; `None`: it is closed.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.watch.mark()
    }

    /// Our own end of it, where that is known.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.watch.local
    }

    /// Its TLS.
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.watch.session.as_ref()
    }

    /// Waits until it can carry a request; `false` where it has been closed. The request before has been
    /// read to its end, so that the wait is for the connection's task to notice, and not for the peer.
    pub(super) async fn is_ready(&mut self) -> bool {
        match self.watch.look() {
            Seen::Over => return false,
            // The connection's task reads it, and sees what it is.
            Seen::Something => tokio::task::yield_now().await,
            Seen::Quiet if self.sender.is_ready() => return true,
            Seen::Quiet => {}
        }
        let ready = poll_fn(|context| self.sender.poll_ready(context));
        let ready = tokio::time::timeout(READY_WITHIN, ready).await;
        matches!(ready, Ok(Ok(())))
    }
}
