//! From changes in the store to snapshots that streams wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::mesh::source::Objects;
use crate::mesh::{Mesh, Settings};
use crate::store;
use crate::translate::Snapshot;

/// Changes that come within this time of each other become one snapshot.
const GATHER: Duration = Duration::from_millis(5);
/// Translation that takes longer is worth a warning.
const SLOW: Duration = Duration::from_secs(1);

/// The mesh as the store has it, translated.
pub fn compile(
    state: &store::Snapshot,
    settings: &Settings,
    previous: Option<&Snapshot>,
) -> Snapshot {
    let mesh = Mesh::build(&Objects::of(state), settings.clone());
    Snapshot::compile(Arc::new(mesh), previous)
}

/// Compiles a snapshot for each change of the store, until cancelled or the store is closed.
pub async fn run(
    mut states: watch::Receiver<Arc<store::Snapshot>>,
    settings: Settings,
    snapshots: watch::Sender<Arc<Snapshot>>,
    cancelled: CancellationToken,
) {
    // What changed between the first snapshot and now must not be missed.
    states.mark_changed();
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(GATHER).await;
        let state = Arc::clone(&states.borrow_and_update());
        let previous = Arc::clone(&snapshots.borrow());
        let settings = settings.clone();
        let work = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let snapshot = compile(&state, &settings, Some(&previous));
            (snapshot, began.elapsed())
        });
        match work.await {
            Ok((snapshot, took)) => announce(&snapshots, snapshot, took),
            Err(error) => {
                tracing::error!(%error, "translation failed; sidecars keep what they have")
            }
        }
    }
}

/// A change that means nothing to any sidecar wakes none.
fn announce(snapshots: &watch::Sender<Arc<Snapshot>>, snapshot: Snapshot, took: Duration) {
    let revision = snapshot.mesh.revision;
    if took > SLOW {
        tracing::warn!(revision, ?took, "translation was slow");
    }
    snapshots.send_if_modified(|current| {
        let is_new = !snapshot.is_same(current);
        if is_new {
            tracing::debug!(revision, ?took, "snapshot compiled");
            *current = Arc::new(snapshot);
        }
        is_new
    });
}
