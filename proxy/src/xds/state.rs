//! What is in force: resources put together, published, and kept on disk.
//!
//! `client` feeds it with what a control plane says; the data plane takes what it publishes. It starts from what
//! was kept, so that there is something in force before anybody was asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};
use weft_proto::envoy::service::discovery::v3::Resource;

use super::assembly::{self, Assembly};
use super::cache::{Cache, Refusal, SharedCache};
use super::dialogue::Removal;
use super::kind::Kind;
use super::metrics::Metrics;
use super::store::{Store, StoreError};
use super::translate::chain;
use crate::config::Configuration;

/// What is in force, for the data plane.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Everything.
    pub configuration: Arc<Configuration>,
    /// Whether it is a whole one: all that the control plane names at first has arrived, or was on disk.
    pub is_complete: bool,
}

/// The last good configuration is written no more often.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// Resources, and what they make.
#[derive(Debug)]
pub struct State {
    node_id: String,
    store: Option<Store>,
    cache: SharedCache,
    assembly: Assembly,
    metrics: Metrics,
    published: watch::Sender<Published>,
    /// Kinds of which a first response has arrived, or that were on disk.
    arrived: BTreeSet<Kind>,
    publish_at: Option<Instant>,
    store_at: Option<Instant>,
    /// The write on its way: there is never more than one.
    saving: Option<JoinHandle<Result<(), StoreError>>>,
}

impl State {
    /// Starts from what is on disk, which is published at once.
    pub fn new(
        node_id: String,
        statics: Configuration,
        store: Option<Store>,
        cache: SharedCache,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<Published>) {
        let first = Published {
            configuration: Arc::new(statics.clone()),
            is_complete: false,
        };
        let (published, receiver) = watch::channel(first);
        let mut state = Self {
            node_id,
            store,
            cache,
            assembly: Assembly::new(statics),
            metrics,
            published,
            arrived: BTreeSet::new(),
            publish_at: None,
            store_at: None,
            saving: None,
        };
        state.take_stored();
        (state, receiver)
    }

    /// Takes what a response changes, each resource for itself, and publishes what it makes. Tells of the
    /// resources that were refused, by name.
    pub fn take(&mut self, kind: Kind, resources: Vec<Resource>, removal: Removal) -> Vec<String> {
        let refusals = {
            let mut cache = self.cache.write();
            let gone = match removal {
                Removal::Named(names) => names,
                Removal::Others => others(&cache, kind, &resources),
            };
            for name in gone {
                cache.remove(kind, &name);
            }
            take_all(&mut cache, kind, resources)
        };
        self.arrived.insert(kind);
        self.publish();
        self.store_at.get_or_insert(Instant::now() + STORE_INTERVAL);
        refusals
    }

    /// The names to ask for. Named resources that nobody names any more are forgotten.
    pub fn wanted(&self, kind: Kind) -> BTreeSet<String> {
        let mut cache = self.cache.write();
        let wanted = cache.wanted(kind);
        if !kind.is_wildcard() {
            cache.keep_wanted(kind, &wanted);
        }
        wanted
    }

    /// The resources.
    pub fn cache(&self) -> &SharedCache {
        &self.cache
    }

    /// Does what is due by itself, whenever it is; returns after each thing done. Can be dropped at any time.
    pub async fn tend(&mut self) {
        let store_at = self.store_at.filter(|_| self.saving.is_none());
        tokio::select! {
            () = until(self.publish_at) => self.publish(),
            () = until(store_at) => self.begin_to_save(),
            saved = finished(&mut self.saving) => self.saved(saved),
        }
    }

    /// Puts together what there is, and publishes it where it differs.
    fn publish(&mut self) {
        let assembled = {
            let cache = self.cache.read();
            for kind in Kind::ALL {
                self.metrics.in_force(kind, cache.in_force(kind).count());
            }
            self.assembly.assemble(&cache, Instant::now())
        };
        self.publish_at = assembled.again_at;
        self.metrics
            .waiting
            .set(i64::try_from(assembled.waiting.len()).unwrap_or(i64::MAX));
        let has_begun = [Kind::Cluster, Kind::Listener]
            .iter()
            .all(|kind| self.arrived.contains(kind));
        let is_whole = has_begun && assembled.waiting.is_empty();
        let has_changed = self.published.send_if_modified(|published| {
            let is_new = !assembly::is_same(&published.configuration, &assembled.configuration);
            let becomes_complete = is_whole && !published.is_complete;
            if is_new {
                published.configuration = Arc::new(assembled.configuration);
            }
            published.is_complete |= is_whole;
            is_new || becomes_complete
        });
        if has_changed {
            self.metrics.updates.increment();
        }
    }

    fn take_stored(&mut self) {
        let Some(store) = &self.store else { return };
        match store.load(&self.node_id) {
            Ok(Some(stored)) => {
                let taken = self.cache.write().take_stored(stored, SystemTime::now());
                info!(
                    resources = taken,
                    "serving the configuration that was in force last"
                );
                if taken > 0 {
                    self.arrived.extend(Kind::ALL);
                    self.publish();
                }
            }
            Ok(None) => {}
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "the last good configuration is not used"
                );
            }
        }
    }

    /// Keeps what is in force on disk, where it has changed, and waits until it is there.
    pub async fn save(&mut self) {
        while self.saving.is_some() || self.store_at.is_some() {
            if self.saving.is_none() {
                self.begin_to_save();
            }
            if self.saving.is_some() {
                let saved = finished(&mut self.saving).await;
                self.saved(saved);
            }
        }
    }

    fn begin_to_save(&mut self) {
        self.store_at = None;
        let Some(store) = self.store.clone() else {
            return;
        };
        let stored = self.cache.read().to_stored(&self.node_id);
        self.saving = Some(tokio::task::spawn_blocking(move || store.save(&stored)));
    }

    fn saved(&mut self, result: Result<(), StoreError>) {
        self.saving = None;
        if let Err(error) = result {
            self.metrics.store_failures.increment();
            warn!(
                error = chain(&error),
                "the last good configuration is not kept"
            );
        }
    }
}

/// The result of the write on its way; never, where there is none.
async fn finished(
    saving: &mut Option<JoinHandle<Result<(), StoreError>>>,
) -> Result<(), StoreError> {
    match saving {
        // A write that was aborted at the end of the process is no failure of the disk.
        Some(write) => write.await.unwrap_or(Ok(())),
        None => std::future::pending().await,
    }
}

/// Takes each resource for itself; tells of those that were refused.
fn take_all(cache: &mut Cache, kind: Kind, resources: Vec<Resource>) -> Vec<String> {
    let now = SystemTime::now();
    let mut names = BTreeSet::new();
    resources
        .into_iter()
        .filter_map(|resource| {
            let name = resource.name.clone();
            let is_first = name.is_empty() || names.insert(name.clone());
            let taken = match is_first {
                true => cache.take(kind, resource, now),
                false => Err(Refusal::Twice),
            };
            let refusal = taken.err()?;
            Some(format!("{} {name}: {refusal}", kind.word()))
        })
        .collect()
}

/// What is known of a kind and not among these.
fn others(cache: &Cache, kind: Kind, resources: &[Resource]) -> Vec<String> {
    let here: BTreeSet<_> = resources.iter().map(|each| each.name.as_str()).collect();
    let known = cache.of_kind(kind).map(|(name, _)| name);
    known
        .filter(|name| !here.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Until then, or for ever.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
