//! Following the store: the latest changes, kept for watchers to read at their own pace.
//!
//! Watchers have no queues. They share one bounded log and each has a place in it; one that falls behind the log's
//! end is told so (`Gone`) and starts over with a list, so a slow watcher costs nothing and loses nothing silently.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::snapshot::Snapshot;
use super::transaction::Change;

/// How many changes are kept.
const CHANGES_KEPT: usize = 8192;
/// How many changes one read returns.
const BATCH: usize = 256;

/// The latest changes in order of their versions.
#[derive(Debug)]
pub(super) struct Log {
    changes: VecDeque<Arc<Change>>,
    /// Changes after this version are all here.
    complete_since: u64,
    capacity: usize,
}

impl Log {
    pub(super) fn new(complete_since: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            complete_since,
            capacity: CHANGES_KEPT,
        }
    }

    pub(super) fn extend(&mut self, changes: &[Arc<Change>]) {
        self.changes.extend(changes.iter().map(Arc::clone));
        while self.changes.len() > self.capacity {
            if let Some(oldest) = self.changes.pop_front() {
                self.complete_since = oldest.object().resource_version();
            }
        }
    }

    fn after(&self, version: u64, until: u64) -> Result<Vec<Arc<Change>>, Gone> {
        if version < self.complete_since {
            return Err(Gone {
                asked: version,
                oldest: self.complete_since,
            });
        }
        let start = self
            .changes
            .partition_point(|change| change.object().resource_version() <= version);
        Ok(self
            .changes
            .range(start..)
            .take_while(|change| change.object().resource_version() <= until)
            .take(BATCH)
            .map(Arc::clone)
            .collect())
    }
}

/// The changes asked for are no longer kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest}); list again and watch from there")]
pub struct Gone {
    /// The version asked for.
    pub asked: u64,
    /// The oldest that a watch can start from.
    pub oldest: u64,
}

/// A place in the log.
#[derive(Debug)]
pub struct Watch {
    log: Arc<Mutex<Log>>,
    published: watch::Receiver<Arc<Snapshot>>,
    version: u64,
}

impl Watch {
    pub(super) fn new(
        log: Arc<Mutex<Log>>,
        published: watch::Receiver<Arc<Snapshot>>,
        version: u64,
    ) -> Result<Self, Gone> {
        log.lock().after(version, version)?;
        Ok(Self {
            log,
            published,
            version,
        })
    }

    /// The version up to which everything has been read.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The next changes, at least one; waits for them. `None` when the store is closed. May be cancelled
    /// without loss.
    ///
    /// # Errors
    /// `Gone` where the watcher has fallen behind.
    pub async fn next(&mut self) -> Result<Option<Vec<Arc<Change>>>, Gone> {
        loop {
            let until = self.published.borrow_and_update().resource_version();
            let changes = self.log.lock().after(self.version, until)?;
            if let Some(last) = changes.last() {
                self.version = last.object().resource_version();
                return Ok(Some(changes));
            }
            if self.published.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}
