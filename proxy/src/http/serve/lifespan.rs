//! When a client's connection has been used enough: after so many requests, or so long.
//!
//! A client of HTTP/1.1 is told with a response (`Connection: close`), one of HTTP/2 by GOAWAY. What it has asked for by
//! then is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::Notify;

use super::LAST_WORDS;
use crate::config::lifespan::Lifespan;
use crate::random;
use crate::telemetry::managers::{HttpEvent, ManagerStats};
use crate::upstream::HttpVersion;

/// The use of one connection.
#[derive(Debug)]
pub(super) struct Use {
    limits: Lifespan,
    version: HttpVersion,
    stats: Arc<ManagerStats>,
    requests: AtomicU32,
    is_over: AtomicBool,
    over: Notify,
}

impl Use {
    /// Of a connection; `None` where nothing limits it.
    pub(super) fn limited(
        limits: &Lifespan,
        version: HttpVersion,
        stats: &Arc<ManagerStats>,
    ) -> Option<Arc<Self>> {
        let is_limited = limits.max_requests.is_some() || limits.max_duration.is_some();
        is_limited.then(|| {
            Arc::new(Use {
                limits: limits.clone(),
                version,
                stats: Arc::clone(stats),
                requests: AtomicU32::new(0),
                is_over: AtomicBool::new(false),
                over: Notify::new(),
            })
        })
    }

    /// Counts a request.
    pub(super) fn begin_request(&self) {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        if self
            .limits
            .max_requests
            .is_some_and(|max| before + 1 >= max)
        {
            if !self.is_over() {
                self.stats.count(HttpEvent::ConnectionUsedUp);
            }
            self.end();
        }
    }

    /// Whether the next response is the last.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.over.notify_one();
    }

    /// Returns when the connection is to finish.
    pub(super) async fn ended(&self) {
        tokio::select! {
            () = self.over.notified() => {}
            () = self.aged() => {
                self.stats.count(HttpEvent::ConnectionTooOld);
                self.end();
            }
        }
        match self.version {
            HttpVersion::Http2 => {}
            // Its next response tells it, and closing before one might cross a request.
            HttpVersion::Http1 if self.limits.waits_for_response => std::future::pending().await,
            HttpVersion::Http1 => tokio::time::sleep(LAST_WORDS).await,
        }
    }

    async fn aged(&self) {
        match self.limits.max_duration {
            Some(duration) => tokio::time::sleep(self.jittered(duration)).await,
            None => std::future::pending().await,
        }
    }

    fn jittered(&self, duration: Duration) -> Duration {
        let share = f64::from(self.limits.jitter.millionths()) / 1e6;
        let drawn: f64 = random::with(|random| random.random());
        duration.saturating_add(duration.mul_f64(share * drawn))
    }
}
