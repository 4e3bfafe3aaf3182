//! What the launcher knows: objects of the API and containers of the node, as of their last change.
//!
//! The watches write it, everybody else reads it and waits for it to change. Readers get shared pointers, never the
//! lock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::RwLock;
use tokio::sync::watch;
use weft_proto::weft::node::v1::{Container, ContainerState, Sandbox};

/// An object's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectName {
    #[cfg(test)]
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The pod's sandbox.
    pub(super) fn sandbox(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// A container of the pod.
    pub(super) fn container(&self, container: &str) -> String {
        format!("{}.{}.{container}", self.namespace, self.name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Everything known at one moment.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) deployments: BTreeMap<ObjectName, Arc<Deployment>>,
    pub(super) jobs: BTreeMap<ObjectName, Arc<Job>>,
    pub(super) pods: BTreeMap<ObjectName, Arc<Pod>>,
    pub(super) services: BTreeMap<ObjectName, Arc<Service>>,
    pub(super) containers: BTreeMap<String, Arc<Container>>,
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    /// Whether all objects of that kind have been seen: before that, absence means nothing.
    pub(super) deployments_synced: bool,
    pub(super) jobs_synced: bool,
    pub(super) pods_synced: bool,
    pub(super) services_synced: bool,
    /// How often the node's containers have been listed: it may be another node each time.
    pub(super) node_sessions: u64,
}

impl State {
    /// Stores a pod unless a newer state of it is known: what the launcher wrote itself is known before the watch
    /// tells.
    pub(super) fn put_pod(&mut self, pod: Pod) {
        let name = ObjectName::of(&pod.metadata);
        let known = self.pods.get(&name).map(|known| version(&known.metadata));
        if known.is_none_or(|known| known <= version(&pod.metadata)) {
            self.pods.insert(name, Arc::new(pod));
        }
    }

    /// The pod of that name, if it is still the same one.
    pub(super) fn pod(&self, name: &ObjectName, uid: &str) -> Option<&Arc<Pod>> {
        self.pods
            .get(name)
            .filter(|pod| pod.metadata.uid.as_deref() == Some(uid))
    }

    pub(super) fn container_state(&self, id: &str) -> ContainerState {
        self.containers
            .get(id)
            .map_or(ContainerState::Unspecified, |container| container.state())
    }
}

/// Resource versions are numbers here (Kubernetes compares them only for equality; ours count up).
fn version(metadata: &ObjectMeta) -> u64 {
    let version = metadata.resource_version.as_deref().unwrap_or_default();
    version.parse().unwrap_or(0)
}

/// The state, and a way to wait for it to change.
#[derive(Debug)]
pub(super) struct World {
    state: RwLock<State>,
    changes: watch::Sender<u64>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: RwLock::default(),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write());
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read())
    }

    /// Ticks with each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until there is an answer. The caller sets the deadline.
    pub(super) async fn until<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let mut changes = self.changes();
        loop {
            if let Some(found) = self.read(&mut look) {
                return found;
            }
            if changes.changed().await.is_err() {
                // The sender is ours: this cannot be.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(version: &str) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some("a".to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }

    #[test]
    fn an_older_state_of_a_pod_never_replaces_a_newer_one() {
        let mut state = State::default();
        state.put_pod(pod("10"));
        state.put_pod(pod("9"));

        let stored = state.pods.values().next().unwrap();
        assert_eq!(stored.metadata.resource_version.as_deref(), Some("10"));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_change_that_was_waited_for() {
        let world = Arc::new(World::new());
        let waiting = Arc::clone(&world);
        let waiter = tokio::spawn(async move {
            waiting.until(|state| state.pods_synced.then_some(())).await;
        });

        world.update(|state| state.services_synced = true);
        world.update(|state| state.pods_synced = true);

        tokio::time::timeout(std::time::Duration::from_secs(10), waiter)
            .await
            .unwrap()
            .unwrap();
    }
}
