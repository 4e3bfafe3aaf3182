//! Finishing what has begun: how connections are told to end, and how one waits until they have.
//!
//! Every connection task holds a token of the drain it belongs to. A listener's drain is a child of the
//! process's: draining the process drains every listener, draining a listener leaves the others alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
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
    /// Shared by the whole family.
    patience: Arc<watch::Sender<Duration>>,
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
            patience: Arc::new(watch::Sender::new(LAST_CALL)),
        }
    }

    /// A group that drains when this one does, and can drain alone.
    pub fn child(&self) -> Self {
        let child = Drain::new();
        Drain {
            signal: self.signal.child_token(),
            patience: Arc::clone(&self.patience),
            ..child
        }
    }

    /// Asks everything in the group to finish what it has begun and, after a last call, begin nothing new.
    pub fn start(&self) {
        self.signal.cancel();
    }

    /// The same where nobody minds how long it takes: whoever is silent now has so long to say what it will.
    pub fn start_patiently(&self, patience: Duration) {
        self.patience.send_replace(patience.max(LAST_CALL));
        self.start();
    }

    /// Ends the patience with which a drain was started.
    pub fn hurry(&self) {
        self.patience.send_replace(LAST_CALL);
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

    /// Returns when that has been asked and the silent need not be waited for any longer: after the last call,
    /// or when the patience is over with which the drain was started.
    pub async fn patience_over(&self) {
        self.started().await;
        let began = Instant::now();
        let mut patience = self.patience.subscribe();
        loop {
            let until = began + *patience.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                // The sender is ours: it does not go away.
                _ = patience.changed() => {}
            }
        }
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

    #[tokio::test]
    async fn a_patient_drain_waits_for_the_silent_until_it_is_hurried() {
        let drain = Drain::new();
        let child = drain.child();
        drain.start_patiently(Duration::from_secs(900));
        let silent = tokio::spawn({
            let child = child.clone();
            async move { child.patience_over().await }
        });

        child.last_call_over().await;
        assert!(!silent.is_finished(), "the silent are waited for");
        drain.hurry();

        let hurried = tokio::time::timeout(Duration::from_secs(10), silent).await;
        hurried.expect("in time").expect("joined");
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
