//! From changes in the store to snapshots that streams wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::mesh::source::ObjectSource;
use crate::mesh::{Mesh, Settings};
use crate::translate::Snapshot;

/// Changes that come within this time of each other become one snapshot.
const GATHER: Duration = Duration::from_millis(5);
/// Translation that takes longer is worth a warning.
const SLOW: Duration = Duration::from_secs(1);

/// The mesh as it is now, translated.
pub fn compile(
    source: &dyn ObjectSource,
    settings: &Settings,
    previous: Option<&Snapshot>,
) -> Snapshot {
    let mesh = Mesh::build(&source.objects(), settings.clone());
    Snapshot::compile(Arc::new(mesh), previous)
}

/// Compiles a snapshot for each change, until cancelled or the source ends.
pub async fn run(
    source: Arc<dyn ObjectSource>,
    settings: Settings,
    snapshots: watch::Sender<Arc<Snapshot>>,
    cancelled: CancellationToken,
) {
    let mut changes = source.changes();
    // What changed between the first snapshot and now must not be missed.
    changes.mark_changed();
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        tokio::time::sleep(GATHER).await;
        changes.mark_unchanged();
        let previous = Arc::clone(&snapshots.borrow());
        let (source, settings) = (Arc::clone(&source), settings.clone());
        let work = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let snapshot = compile(&*source, &settings, Some(&previous));
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

fn announce(snapshots: &watch::Sender<Arc<Snapshot>>, snapshot: Snapshot, took: Duration) {
    let revision = snapshot.mesh.revision;
    if took > SLOW {
        tracing::warn!(revision, ?took, "translation was slow");
    }
    tracing::debug!(revision, ?took, "snapshot compiled");
    snapshots.send_replace(Arc::new(snapshot));
}
