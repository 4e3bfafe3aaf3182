//! An HTTP/1.1 connection to an endpoint: one request at a time.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;

use super::body::RequestBody;
use super::io::{Mark, Seen, UpstreamIo, Watch};
use super::preamble::Preamble;
use crate::cluster::connections::ConnectionPermit;
use crate::config::http1::HeaderNames;

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(super) struct Http1Connection {
    pub(super) sender: SendRequest<RequestBody>,
    /// How many requests it has carried, the current one included.
    pub(super) requests: u32,
    pub(super) idle_since: Instant,
    /// What it began with: only requests that would begin so may use it.
    pub(super) preamble: Option<Preamble>,
    made_at: Instant,
    watch: Watch,
}

/// Response heads are bounded by this, and so is what is buffered of a connection.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Nothing is waited for longer that only this process has to do.
const READY_WITHIN: Duration = Duration::from_secs(1);

impl Http1Connection {
    /// Speaks HTTP on a connection. It is driven by a task of its own, which ends with it and holds the permit.
    pub(super) async fn over(
        io: UpstreamIo,
        permit: ConnectionPermit,
        names: HeaderNames,
    ) -> hyper::Result<Self> {
        let watch = io.watch();
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_BUFFER_BYTES)
            .preserve_header_case(names.are_preserved())
            .title_case_headers(names.are_proper())
            .handshake(TokioIo::new(io))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::trace!(%error, "upstream connection ended");
            }
            drop(permit);
        });
        Ok(Http1Connection {
            sender,
            requests: 0,
            idle_since: Instant::now(),
            preamble: None,
            made_at: Instant::now(),
            watch,
        })
    }

    /// Whether it has been in use for longer than it may be.
    pub(super) fn is_too_old(&self, now: Instant, longest: Option<Duration>) -> bool {
        longest.is_some_and(|longest| now.saturating_duration_since(self.made_at) >= longest)
    }

    /// What has been written to it so far; `None`: it is closed.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.watch.mark()
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
