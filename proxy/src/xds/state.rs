//! What is in force: resources put together, published, and kept on disk.
//!
//! `client` feeds it with what a control plane says, `file` with what files say; the data plane takes what it publishes. It starts from what
//! was kept, so that there is something in force before anybody was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_proto::envoy::service::discovery::v3::Resource;

use super::assembly::{self, Assembly};
use super::cache::{Cache, Refusal, SharedCache};
use super::dialogue::Removal;
use super::kind::Kind;
use super::metrics::Metrics;
use super::origin::Origin;
use super::store::{Store, StoreError};
use super::translate::chain;
use super::watch::Watched;
use crate::config::Configuration;
use crate::config::runtime::NoAdminLayer;

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

/// Resources, and what they make. Shared by all that bring resources.
#[derive(Debug)]
pub struct State {
    node_id: String,
    store: Option<Store>,
    cache: SharedCache,
    metrics: Metrics,
    published: watch::Sender<Published>,
    /// Counts what was taken, from wherever.
    changes: watch::Sender<u64>,
    progress: Mutex<Progress>,
}

/// What has been made of the resources, and what is due.
#[derive(Debug)]
struct Progress {
    assembly: Assembly,
    /// Kinds of which a first response is awaited, and until when.
    awaited: BTreeMap<Kind, Option<Instant>>,
    publish_at: Option<Instant>,
    store_at: Option<Instant>,
}

impl State {
    /// Starts from what is on disk, which is published at once. The first configuration is complete when the
    /// kinds that are awaited have come, or their time is over.
    pub fn new(
        node_id: String,
        store: Option<Store>,
        cache: SharedCache,
        metrics: Metrics,
        awaited: &BTreeMap<Kind, Option<Duration>>,
    ) -> (Self, watch::Receiver<Published>) {
        let now = Instant::now();
        let until = |limit: &Option<Duration>| limit.map(|limit| now + limit);
        let awaited = awaited.iter().map(|(kind, limit)| (*kind, until(limit)));
        let (published, receiver) = watch::channel(Published::default());
        let state = Self {
            node_id,
            store,
            cache,
            metrics,
            published,
            changes: watch::Sender::new(0),
            progress: Mutex::new(Progress {
                assembly: Assembly::default(),
                awaited: awaited.collect(),
                publish_at: None,
                store_at: None,
            }),
        };
        // The bootstrap's own resources, before anybody was asked.
        state.publish(&mut state.progress.lock());
        state.take_stored();
        (state, receiver)
    }

    /// Takes what a response changes, each resource for itself, and publishes what it makes. Tells of the
    /// resources that were refused, by name. Resources that are wanted from elsewhere are passed over.
    pub fn take(
        &self,
        kind: Kind,
        mut resources: Vec<Resource>,
        mut removal: Removal,
        origin: &Origin,
    ) -> Vec<String> {
        let mut progress = self.progress.lock();
        let refusals = {
            let mut cache = self.cache.write();
            keep_own(&cache, kind, origin, &mut resources, &mut removal);
            let gone = match removal {
                Removal::Named(names) => names,
                Removal::Others => others(&cache, kind, &resources),
            };
            for name in gone {
                cache.remove(kind, &name);
            }
            let refusals = take_all(&mut cache, kind, resources);
            if kind == Kind::Runtime {
                cache.take_layers();
            }
            refusals
        };
        progress.awaited.remove(&kind);
        self.publish(&mut progress);
        progress
            .store_at
            .get_or_insert(Instant::now() + STORE_INTERVAL);
        drop(progress);
        self.tell_of_change();
        refusals
    }

    fn tell_of_change(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The names to ask an origin for. Named resources that nobody names any more are forgotten.
    pub fn wanted(&self, kind: Kind, from: &Origin) -> BTreeSet<String> {
        if kind.is_wildcard() {
            return BTreeSet::new();
        }
        let mut cache = self.cache.write();
        let wanted = cache.wanted(kind).into_iter();
        let (wanted, all): (Vec<_>, _) = wanted
            .map(|(name, origin)| (Some(name.clone()).filter(|_| origin == from), name))
            .unzip();
        cache.keep_wanted(kind, &all);
        wanted.into_iter().flatten().collect()
    }

    /// Reads resources again whose files have changed in a directory.
    pub fn read_files_again(&self, watched: &Watched) {
        self.change(|cache| cache.read_files_again(watched));
    }

    /// Modifies runtime values, and reads again what depends on them.
    ///
    /// # Errors
    /// No layer of the runtime may be modified.
    pub fn modify_runtime<'a>(
        &self,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), NoAdminLayer> {
        let mut runtime = self.cache.read().runtime().clone();
        runtime.modify(values)?;
        self.change(|cache| cache.set_runtime(runtime));
        Ok(())
    }

    /// Changes resources without a response; where that makes a difference, it is published.
    fn change(&self, change: impl FnOnce(&mut Cache) -> bool) {
        let mut progress = self.progress.lock();
        let has_changed = change(&mut self.cache.write());
        if has_changed {
            self.publish(&mut progress);
            drop(progress);
            self.tell_of_change();
        }
    }

    /// The resources.
    pub fn cache(&self) -> &SharedCache {
        &self.cache
    }

    /// Tells whenever something was taken: other names may be wanted.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Does what is due by itself, whenever it is, until cancelled; then keeps what is in force on disk.
    pub async fn tend(self: Arc<Self>, cancel: CancellationToken) {
        let mut changes = self.changes();
        // The write on its way: there is never more than one.
        let mut saving = None;
        loop {
            let (due, store_at) = self.due();
            let store_at = store_at.filter(|_| saving.is_none());
            tokio::select! {
                () = until(due) => self.publish_what_is_due(),
                () = until(store_at) => saving = self.begin_to_save(),
                saved = finished(&mut saving) => {
                    saving = None;
                    self.saved(saved);
                }
                Ok(()) = changes.changed() => {}
                () = cancel.cancelled() => break,
            }
        }
        while saving.is_some() || self.due().1.is_some() {
            let mut write = saving.take().or_else(|| self.begin_to_save());
            if write.is_some() {
                let saved = finished(&mut write).await;
                self.saved(saved);
            }
        }
    }

    /// When to put together anew although nothing has arrived, and when to write to disk.
    fn due(&self) -> (Option<Instant>, Option<Instant>) {
        let progress = self.progress.lock();
        let awaited = progress.awaited.values().copied().flatten();
        let due = awaited.chain(progress.publish_at).min();
        (due, progress.store_at)
    }

    fn publish_what_is_due(&self) {
        let mut progress = self.progress.lock();
        let now = Instant::now();
        progress.awaited.retain(|kind, limit| {
            let is_over = limit.is_some_and(|limit| limit <= now);
            if is_over {
                let kind = kind.word();
                warn!(
                    kind,
                    "initial_fetch_timeout is over and nothing has come: going on without"
                );
            }
            !is_over
        });
        self.publish(&mut progress);
    }

    /// Puts together what there is, and publishes it where it differs.
    fn publish(&self, progress: &mut Progress) {
        let assembled = {
            let cache = self.cache.read();
            for kind in Kind::ALL {
                self.metrics.in_force(kind, cache.in_force(kind).count());
            }
            progress.assembly.assemble(&cache, Instant::now())
        };
        progress.publish_at = assembled.again_at;
        self.metrics
            .waiting
            .set(i64::try_from(assembled.waiting.len()).unwrap_or(i64::MAX));
        let is_whole = progress.awaited.is_empty() && assembled.waiting.is_empty();
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

    fn take_stored(&self) {
        let Some(store) = &self.store else { return };
        match store.load(&self.node_id) {
            Ok(Some(stored)) => {
                let taken = self.cache.write().take_stored(stored, SystemTime::now());
                info!(
                    resources = taken,
                    "serving the configuration that was in force last"
                );
                if taken > 0 {
                    let mut progress = self.progress.lock();
                    progress.awaited.clear();
                    self.publish(&mut progress);
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

    fn begin_to_save(&self) -> Option<Write> {
        self.progress.lock().store_at = None;
        let store = self.store.clone()?;
        let stored = self.cache.read().to_stored(&self.node_id);
        Some(tokio::task::spawn_blocking(move || store.save(&stored)))
    }

    fn saved(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            self.metrics.store_failures.increment();
            warn!(
                error = chain(&error),
                "the last good configuration is not kept"
            );
        }
    }
}

/// A write to disk on its way.
type Write = JoinHandle<Result<(), StoreError>>;

/// The result of the write on its way; never, where there is none.
async fn finished(saving: &mut Option<Write>) -> Result<(), StoreError> {
    match saving {
        // A write that was aborted at the end of the process is no failure of the disk.
        Some(write) => write.await.unwrap_or(Ok(())),
        None => std::future::pending().await,
    }
}

/// Leaves out named resources that are wanted from elsewhere, and of a file those that nobody wants.
fn keep_own(
    cache: &Cache,
    kind: Kind,
    origin: &Origin,
    resources: &mut Vec<Resource>,
    removal: &mut Removal,
) {
    if kind.is_wildcard() {
        return;
    }
    let wanted = cache.wanted(kind);
    let is_file = matches!(origin, Origin::File(_));
    let is_own = |name: &str| match wanted.get(name) {
        Some(of) => *of == origin,
        None => !is_file,
    };
    // What has no name cannot be decoded, and is refused.
    resources.retain(|resource| resource.name.is_empty() || is_own(&resource.name));
    if let Removal::Named(names) = removal {
        names.retain(|name| is_own(name));
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
