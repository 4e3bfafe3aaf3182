//! Keeps the world up to date: four watches of the API, one of the node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use tracing::{debug, warn};
use weft_proto::weft::node::v1::{Container, ContainerState};

use super::Context;
use super::failure::Failure;
use super::world::ObjectName;
use crate::api::{Collection, Event};

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

pub(super) async fn deployments(context: Arc<Context>) {
    let mut watch = context
        .client
        .watch::<Deployment>(&Collection::all::<Deployment>());
    while let Some(event) = watch.next().await {
        context.world.update(|state| match event {
            Event::Applied(deployment) => {
                let name = ObjectName::of(&deployment.metadata);
                state.deployments.insert(name, Arc::new(deployment));
            }
            Event::Deleted(deployment) => {
                state
                    .deployments
                    .remove(&ObjectName::of(&deployment.metadata));
            }
            Event::Synced => state.deployments_synced = true,
        });
    }
}

pub(super) async fn jobs(context: Arc<Context>) {
    let mut watch = context.client.watch::<Job>(&Collection::all::<Job>());
    while let Some(event) = watch.next().await {
        context.world.update(|state| match event {
            Event::Applied(job) => {
                state
                    .jobs
                    .insert(ObjectName::of(&job.metadata), Arc::new(job));
            }
            Event::Deleted(job) => {
                state.jobs.remove(&ObjectName::of(&job.metadata));
            }
            Event::Synced => state.jobs_synced = true,
        });
    }
}

pub(super) async fn pods(context: Arc<Context>) {
    let mut watch = context.client.watch::<Pod>(&Collection::all::<Pod>());
    while let Some(event) = watch.next().await {
        context.world.update(|state| match event {
            Event::Applied(pod) => state.put_pod(pod),
            Event::Deleted(pod) => {
                let name = ObjectName::of(&pod.metadata);
                // A namesake may have been made since.
                if state
                    .pods
                    .get(&name)
                    .is_some_and(|known| known.metadata.uid == pod.metadata.uid)
                {
                    state.pods.remove(&name);
                }
            }
            Event::Synced => state.pods_synced = true,
        });
    }
}

pub(super) async fn services(context: Arc<Context>) {
    let mut watch = context
        .client
        .watch::<Service>(&Collection::all::<Service>());
    while let Some(event) = watch.next().await {
        context.world.update(|state| match event {
            Event::Applied(service) => {
                let name = ObjectName::of(&service.metadata);
                state.services.insert(name, Arc::new(service));
            }
            Event::Deleted(service) => {
                state.services.remove(&ObjectName::of(&service.metadata));
            }
            Event::Synced => state.services_synced = true,
        });
    }
}

/// Follows the node's containers, from one node to the next.
pub(super) async fn containers(context: Arc<Context>) {
    let mut delay = FIRST_DELAY;
    loop {
        let sessions = context.world.read(|state| state.node_sessions);
        if let Err(error) = session(&context).await {
            debug!(%error, "the watch of the node's containers ended");
        }
        if context.world.read(|state| state.node_sessions) > sessions {
            delay = FIRST_DELAY;
        } else {
            warn!("the node cannot be reached; trying again");
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

async fn session(context: &Context) -> Result<(), Failure> {
    // The watch is opened before the list is taken: what changes in between is told by the watch.
    let mut changes = context.node.watch_containers().await?;
    let sandboxes = context.node.list_sandboxes().await?;
    let containers = context.node.list_containers().await?;
    context.world.update(|state| {
        state.sandboxes = sandboxes
            .into_iter()
            .map(|sandbox| (sandbox.id.clone(), sandbox))
            .collect();
        state.containers = BTreeMap::new();
        containers
            .into_iter()
            .for_each(|container| put(&mut state.containers, container));
        state.node_sessions += 1;
    });
    while let Some(container) = changes.message().await.map_err(|status| Failure::Node {
        doing: "watching containers".to_owned(),
        status: Box::new(status),
    })? {
        context
            .world
            .update(|state| put(&mut state.containers, container));
    }
    Ok(())
}

fn put(containers: &mut BTreeMap<String, Arc<Container>>, container: Container) {
    if container.state() == ContainerState::Removed {
        containers.remove(&container.id);
    } else {
        containers.insert(container.id.clone(), Arc::new(container));
    }
}
