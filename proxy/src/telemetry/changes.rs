//! What has become of configurations: what came, changed and went.

use std::sync::atomic::{AtomicU64, Ordering};

/// Changes of one kind of thing.
#[derive(Debug, Default)]
pub struct Changes {
    /// What is new.
    pub added: AtomicU64,
    /// What is configured otherwise.
    pub modified: AtomicU64,
    /// What is the same, and new are things that belong to it.
    pub refreshed: AtomicU64,
    /// What is gone.
    pub removed: AtomicU64,
}

/// Changes of a configuration that is served.
#[derive(Debug, Default)]
pub struct ConfigurationChanges {
    /// Of clusters; refreshed by other endpoints.
    pub clusters: Changes,
    /// Of listeners; refreshed by other routes.
    pub listeners: Changes,
    /// Sockets that were bound.
    pub bound: AtomicU64,
    /// Sockets that could not be.
    pub not_bound: AtomicU64,
}

/// How a thing compares to the one of its name before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is the very same.
    None,
    /// What belongs to it is other.
    Refreshed,
    /// It is configured otherwise.
    Modified,
}

impl Changes {
    /// Compares things by name: `change` says how each compares to the one before, `None` where there was none; `gone`
    /// is how many have no successor.
    pub fn count(&self, changes: impl Iterator<Item = Option<Change>>, gone: usize) {
        for change in changes {
            let counter = match change {
                None => &self.added,
                Some(Change::None) => continue,
                Some(Change::Refreshed) => &self.refreshed,
                Some(Change::Modified) => &self.modified,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.removed.fetch_add(gone as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_is_counted_for_itself() {
        let changes = Changes::default();

        let seen = [None, Some(Change::None), Some(Change::Modified), None];
        changes.count(seen.into_iter(), 4);

        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((read(&changes.added), read(&changes.modified)), (2, 1));
        assert_eq!((read(&changes.refreshed), read(&changes.removed)), (0, 4));
    }
}
