//! The end of a pod, and of an attempt to start one: the steps of the launch, backwards.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::sleep;
use tracing::{debug, info, warn};
use weft_proto::weft::node::v1::ContainerState;

use super::PodTask;
use crate::api::{Collection, DeleteOptions, Preconditions};
use crate::launcher::container::{Role, all};
use crate::launcher::failure::Failure;
use crate::launcher::status::is_ready;

/// Between the withdrawal of the endpoint and the first signal: other sidecars must have heard of it.
const DRAIN: Duration = Duration::from_millis(500);
/// The same where clients outside the mesh are at the door: they are told by an answer to one more request, for which a
/// sidecar waits a second.
const DRAIN_AT_THE_DOOR: Duration = Duration::from_millis(1500);
/// For the sidecar, which ends after everybody who could use it.
const SIDECAR_GRACE: Duration = Duration::from_secs(5);
const UNDO_GRACE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

impl PodTask {
    /// Ends the pod and removes it from the API.
    pub(super) async fn end(&self) {
        let grace = self.grace();
        let was_ready = is_ready(&self.latest());
        self.progress.send_modify(|progress| {
            progress.is_quiet = false;
            progress.is_ending = true;
        });
        self.report().await;
        if was_ready {
            let is_at_the_door = publishes(&self.latest());
            sleep(if is_at_the_door {
                DRAIN_AT_THE_DOOR
            } else {
                DRAIN
            })
            .await;
        }
        self.stop(Role::Main, grace).await;
        self.stop(Role::Init, Duration::ZERO).await;
        self.stop_sidecars().await;
        self.withdraw_ports();
        while let Err(failure) = self.remove_sandbox().await {
            warn!(error = %failure, "the sandbox could not be removed; trying again");
            sleep(RETRY).await;
        }
        self.remove_object().await;
        info!("the pod is gone");
    }

    /// Takes back what an attempt did.
    pub(super) async fn undo(&self) {
        self.stop(Role::Main, UNDO_GRACE).await;
        self.stop(Role::Init, Duration::ZERO).await;
        self.stop_sidecars().await;
        self.withdraw_ports();
        if let Err(failure) = self.remove_sandbox().await {
            warn!(error = %failure, "the sandbox could not be removed");
            return;
        }
        if let Err(failure) = self.annotate(serde_json::Value::Null).await {
            debug!(error = %failure, "the annotation of the pod stays");
        }
        self.progress.send_modify(|progress| {
            progress.addresses.clear();
            progress.ready.clear();
            progress.is_initialized = false;
        });
        self.report().await;
    }

    pub(super) async fn stop_sidecars(&self) {
        self.stop(Role::Sidecar, SIDECAR_GRACE).await;
    }

    /// Stops all containers of one part at once.
    async fn stop(&self, part: Role, grace: Duration) {
        let spec = self.latest().spec.clone().unwrap_or_default();
        let ids = all(&spec).filter(|(role, _)| *role == part);
        let ids = ids.map(|(_, container)| self.name.container(&container.name));
        let stopping = ids.filter(|id| self.is_alive(id)).map(|id| async move {
            if let Err(failure) = self.context.node.stop_container(id, grace).await {
                debug!(error = %failure, "not stopped; it goes with its sandbox");
            }
        });
        join_all(stopping).await;
    }

    /// The pod as it is, or was.
    fn latest(&self) -> Arc<Pod> {
        let known = self
            .context
            .world
            .read(|state| state.pod(&self.name, &self.uid).cloned());
        known.unwrap_or_else(|| Arc::clone(&self.first))
    }

    fn is_alive(&self, id: &str) -> bool {
        let state = self.context.world.read(|state| state.container_state(id));
        matches!(state, ContainerState::Running | ContainerState::Restarting)
    }

    async fn remove_sandbox(&self) -> Result<(), Failure> {
        let id = self.name.sandbox();
        self.context.node.remove_sandbox(id.clone()).await?;
        self.context.world.update(|state| {
            state.sandboxes.remove(&id);
        });
        if let Err(error) = self.context.scratch.remove(&id).await {
            warn!(%error, "the pod's volumes could not be removed");
        }
        Ok(())
    }

    /// What the API keeps of a pod on its way out until the launcher says that it is gone.
    async fn remove_object(&self) {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: self.uid.clone(),
            }),
            ..DeleteOptions::default()
        };
        let collection = Collection::of::<Pod>(&self.name.namespace);
        loop {
            let deleted = self
                .context
                .client
                .delete(&collection, &self.name.name, &options)
                .await;
            match deleted {
                Err(error) if error.is_transient() => {
                    warn!(%error, "the pod could not be deleted from the API; trying again");
                    sleep(RETRY).await;
                }
                Err(error) if !error.is_not_found() && !error.is_conflict() => {
                    warn!(%error, "the API keeps the pod");
                    break;
                }
                _ => break,
            }
        }
        self.context.world.update(|state| {
            if state.pod(&self.name, &self.uid).is_some() {
                state.pods.remove(&self.name);
            }
        });
    }
}

/// Whether a port of the host leads to the pod.
fn publishes(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.any(|port| port.host_port.is_some())
}
