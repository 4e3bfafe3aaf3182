//! The resource store: what should be, and what is, across restarts.
//!
//! Reads never wait: they see an immutable [`Snapshot`]. Writes are transactions, one after the other on the
//! blocking pool; each is on the disk before anybody sees it. A transaction once started runs to its end even when its
//! caller goes away, so file and memory cannot differ.

mod disk;
mod object;
mod snapshot;
mod transaction;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

pub use object::{Name, Object};
pub use snapshot::Snapshot;
pub use transaction::{Change, Transaction, seconds};
pub use watch::{Gone, Watch};

use crate::revisions::Revision;
use disk::Disk;

/// Why the store could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("opening the store {path}: is another daemon running, and may this user write there?")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading or writing failed.
    #[error("the store's file cannot be read or written: is the disk full?")]
    Storage {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The writer panicked or the runtime is shutting down.
    #[error("the store is closing")]
    Closing,
}

/// What a transaction came to.
#[derive(Debug)]
pub struct Committed<T> {
    /// What its closure returned.
    pub result: T,
    /// What the caller should know.
    pub warnings: Vec<String>,
    /// The revision it made, where it made one.
    pub revision: Option<u64>,
}

/// Whether a transaction that went well is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is written.
    Commit,
    /// It was only a try.
    Discard,
}

/// A handle to the store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held for the length of one transaction.
    disk: Mutex<Disk>,
    log: Arc<Mutex<watch::Log>>,
    published: tokio::sync::watch::Sender<Arc<Snapshot>>,
}

impl Store {
    /// Opens the store, or makes it. Blocking.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let disk = Disk::open(path)?;
        let snapshot = disk.load()?;
        let log = watch::Log::new(snapshot.resource_version());
        Ok(Self {
            shared: Arc::new(Shared {
                disk: Mutex::new(disk),
                log: Arc::new(Mutex::new(log)),
                published: tokio::sync::watch::Sender::new(Arc::new(snapshot)),
            }),
        })
    }

    /// Everything as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.published.borrow())
    }

    /// Always the latest snapshot, and a word when there is a newer one; steps in between may be skipped.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<Arc<Snapshot>> {
        self.shared.published.subscribe()
    }

    /// Every change after a version, none skipped.
    pub fn watch(&self, after_version: u64) -> Result<Watch, Gone> {
        Watch::new(
            Arc::clone(&self.shared.log),
            self.shared.published.subscribe(),
            after_version,
        )
    }

    /// Runs a transaction: `change` sees the latest state and works on it; where it returns an error nothing has
    /// happened.
    pub async fn transact<T, E, F>(&self, change: F) -> Result<Committed<T>, E>
    where
        F: FnOnce(&mut Transaction) -> Result<(T, Outcome, Option<Revision>), E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.transact(change))
            .await
            .map_err(|_| Error::Closing)?
    }

    /// The newest revisions, newest first.
    pub async fn revisions(&self, limit: usize) -> Result<Vec<Revision>, Error> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.disk.lock().revisions(limit))
            .await
            .map_err(|_| Error::Closing)?
    }

    /// One revision.
    pub async fn revision(&self, number: u64) -> Result<Option<Revision>, Error> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.disk.lock().revision(number))
            .await
            .map_err(|_| Error::Closing)?
    }
}

impl Shared {
    fn transact<T, E, F>(&self, change: F) -> Result<Committed<T>, E>
    where
        F: FnOnce(&mut Transaction) -> Result<(T, Outcome, Option<Revision>), E>,
        E: From<Error>,
    {
        let disk = self.disk.lock();
        let base = Snapshot::clone(&self.published.borrow());
        let mut transaction = Transaction::new(base, Timestamp::now());
        let (result, outcome, revision) = change(&mut transaction)?;
        let number = revision.as_ref().map(|revision| revision.number);
        if let Some(number) = number {
            transaction.set_revision(number);
        }
        let (snapshot, changes, warnings) = transaction.into_parts();
        if outcome == Outcome::Commit && !changes.is_empty() {
            disk.commit(&changes, &snapshot, revision.as_ref())?;
            // Log first: whoever sees the new snapshot finds all that led to it.
            self.log.lock().extend(&changes);
            self.published.send_replace(Arc::new(snapshot));
        }
        Ok(Committed {
            result,
            warnings,
            revision: number,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::{CONFIG_MAP, DEPLOYMENT};

    fn config(name: &str, data: &str) -> Value {
        json!({"metadata": {"namespace": "default", "name": name}, "data": {"key": data}})
    }

    async fn put(store: &Store, value: Value) -> Arc<Object> {
        store
            .transact(move |transaction| {
                let object = transaction.put(&CONFIG_MAP, value);
                Ok::<_, Error>((object, Outcome::Commit, None))
            })
            .await
            .unwrap()
            .result
    }

    #[tokio::test]
    async fn objects_and_versions_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.redb");
        let store = Store::open(&path).unwrap();
        let written = put(&store, config("one", "1")).await;
        let version = store.snapshot().resource_version();
        drop(store);

        let store = Store::open(&path).unwrap();

        let snapshot = store.snapshot();
        let found = snapshot
            .find(&CONFIG_MAP, &Name::new("default", "one"))
            .unwrap();
        assert_eq!(found.value(), written.value());
        assert_eq!(snapshot.resource_version(), version);
        assert!(put(&store, config("two", "2")).await.resource_version() > version);
    }

    #[tokio::test]
    async fn a_failed_transaction_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.redb")).unwrap();

        let failed: Result<Committed<()>, Error> = store
            .transact(|transaction| {
                transaction.put(&CONFIG_MAP, config("one", "1"));
                Err(Error::Closing)
            })
            .await;

        assert!(failed.is_err());
        assert_eq!(store.snapshot().all().count(), 0);
        assert_eq!(store.snapshot().resource_version(), 0);
    }

    #[tokio::test]
    async fn writing_what_is_already_there_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.redb")).unwrap();
        let first = put(&store, config("one", "1")).await;

        let second = put(&store, config("one", "1")).await;

        assert_eq!(first.resource_version(), second.resource_version());
    }

    #[tokio::test]
    async fn generation_counts_changes_of_the_spec_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.redb")).unwrap();
        let deployment = |replicas: u32, ready: u32| {
            json!({
                "metadata": {"namespace": "default", "name": "web"},
                "spec": {"replicas": replicas},
                "status": {"readyReplicas": ready},
            })
        };

        let generations = store
            .transact(move |transaction| {
                let generations = [(1, 0), (1, 1), (2, 1)].map(|(replicas, ready)| {
                    transaction
                        .put(&DEPLOYMENT, deployment(replicas, ready))
                        .generation()
                });
                Ok::<_, Error>((generations, Outcome::Commit, None))
            })
            .await
            .unwrap()
            .result;

        assert_eq!(generations, [1, 1, 2]);
    }

    #[tokio::test]
    async fn a_watch_sees_every_change_after_its_version_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.redb")).unwrap();
        put(&store, config("one", "1")).await;
        let mut watch = store.watch(store.snapshot().resource_version()).unwrap();
        put(&store, config("one", "2")).await;
        put(&store, config("two", "1")).await;

        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(watch.next().await.unwrap().unwrap());
        }

        assert!(matches!(*seen[0], Change::Modified { .. }));
        assert!(matches!(*seen[1], Change::Added(_)));
        assert_eq!(watch.version(), store.snapshot().resource_version());
    }

    #[tokio::test]
    async fn a_watch_that_fell_behind_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state.redb")).unwrap();
        let mut watch = store.watch(0).unwrap();
        store
            .transact(|transaction| {
                for number in 0..9000 {
                    transaction.put(&CONFIG_MAP, config("one", &number.to_string()));
                }
                Ok::<_, Error>(((), Outcome::Commit, None))
            })
            .await
            .unwrap();

        assert!(watch.next().await.is_err());
        assert!(store.watch(0).is_err());
        assert!(store.watch(store.snapshot().resource_version()).is_ok());
    }
}
