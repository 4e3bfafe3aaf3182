//! Finishing what has begun: how connections are told to end, and how one waits until they have.
//!
//! Every connection task holds a token of the drain it belongs to. A listener's drain is a child of the
//! process's: draining the process drains every listener, draining a listener leaves the others alone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long after the start of a drain a connection may still begin something: what its client sent before it
/// could know is on its way, and closing now would lose it (RFC 9112 §9.6).
const LAST_CALL: Duration = Duration::from_secs(1);

/// A group of connections that can be asked to finish.
#[derive(Debug, Clone)]
pub struct Drain {
    signal: CancellationToken,
    open: TaskTracker,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A group of its own.
    pub fn new() -> Self {
        let open = TaskTracker::new();
        // Closed means only that `finished` may return; tokens can still be taken.
        open.close();
        Drain {
            signal: CancellationToken::new(),
            open,
        }
    }

    /// A group that drains when this one does, and can drain alone.
    pub fn child(&self) -> Self {
        let child = Drain::new();
        Drain {
            signal: self.signal.child_token(),
            open: child.open,
        }
    }

    /// Asks everything in the group to finish what it has begun and, after a last call, begin nothing new.
    pub fn start(&self) {
        self.signal.cancel();
    }

    /// Whether that has been asked.
    pub fn is_started(&self) -> bool {
        self.signal.is_cancelled()
    }

    /// Returns when that is asked.
    pub async fn started(&self) {
        self.signal.cancelled().await;
    }

    /// Returns when that has been asked and nothing new may begin any more.
    pub async fn last_call_over(&self) {
        self.started().await;
        tokio::time::sleep(LAST_CALL).await;
    }

    /// Counts as open until the token is dropped.
    pub fn token(&self) -> TaskTrackerToken {
        self.open.token()
    }

    /// How many tokens are out.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Waits until none is open, or the time is over; says which.
    pub async fn finished_within(&self, limit: Duration) -> Result<(), StillOpen> {
        tokio::time::timeout(limit, self.open.wait())
            .await
            .map_err(|_| StillOpen(self.open()))
    }
}

/// So many were still open when the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} connections were still open at the end of the drain time")]
pub struct StillOpen(pub usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_is_finished_when_the_last_token_is_dropped() {
        let drain = Drain::new();
        let token = drain.token();

        assert_eq!(
            drain.finished_within(Duration::ZERO).await,
            Err(StillOpen(1))
        );
        drop(token);
        assert_eq!(drain.finished_within(Duration::from_secs(5)).await, Ok(()));
    }

    #[test]
    fn a_child_drains_with_its_parent_and_alone() {
        let parent = Drain::new();
        let (first, second) = (parent.child(), parent.child());

        first.start();
        assert!(first.is_started() && !second.is_started() && !parent.is_started());

        parent.start();
        assert!(second.is_started());
    }
}
