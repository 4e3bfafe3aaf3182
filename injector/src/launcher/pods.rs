//! The Pod controller: one task per pod, and nothing left of pods that are no more.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{Id, JoinSet};
use tracing::{error, info, warn};

use super::Context;
use super::pod;
use super::world::{ObjectName, State};

/// Starts a task for each pod, and keeps them until they are through.
pub(super) async fn control(context: Arc<Context>) {
    context
        .world
        .until(|state| (state.pods_synced && state.node_sessions > 0).then_some(()))
        .await;
    remove_orphans(&context).await;
    let mut changes = context.world.changes();
    let mut tasks = JoinSet::new();
    let mut names: HashMap<Id, ObjectName> = HashMap::new();
    loop {
        for (name, uid) in context.world.read(all) {
            // A namesake waits until the former one's sandbox is gone.
            if !names.values().any(|known| *known == name) {
                let task = pod::run(Arc::clone(&context), name.clone(), uid);
                names.insert(tasks.spawn(task).id(), name);
            }
        }
        tokio::select! {
            Some(ended) = tasks.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        error!(%error, "a pod's task failed; it is started again");
                        error.id()
                    }
                };
                names.remove(&id);
            }
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

fn all(state: &State) -> Vec<(ObjectName, String)> {
    let pods = state.pods.iter();
    pods.map(|(name, pod)| (name.clone(), pod.metadata.uid.clone().unwrap_or_default()))
        .collect()
}

/// Sandboxes that a former launcher made for pods which were deleted while none was running.
async fn remove_orphans(context: &Context) {
    let orphans: Vec<String> = context.world.read(|state| {
        let is_alive = |uid: &str| {
            state
                .pods
                .values()
                .any(|pod| pod.metadata.uid.as_deref() == Some(uid))
        };
        let sandboxes = state.sandboxes.values();
        // Without the label it is somebody else's: `weft container` makes sandboxes too.
        sandboxes
            .filter(|sandbox| sandbox.labels.get("uid").is_some_and(|uid| !is_alive(uid)))
            .map(|sandbox| sandbox.id.clone())
            .collect()
    });
    for sandbox in orphans {
        info!(sandbox, "removing what is left of a deleted pod");
        if let Err(error) = context.node.remove_sandbox(sandbox.clone()).await {
            warn!(sandbox, %error, "not removed");
        }
    }
    for sandbox in context.scratch.sandboxes() {
        let is_needed = context.world.read(|state| {
            let mut pods = state.pods.keys();
            pods.any(|name| name.sandbox() == sandbox)
        });
        if is_needed {
            continue;
        }
        if let Err(error) = context.scratch.remove(&sandbox).await {
            warn!(sandbox, %error, "volumes not removed");
        }
    }
}
