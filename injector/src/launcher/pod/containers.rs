//! Makes and starts containers, unless they are there already.

use std::time::Duration;

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Container;
use tokio::time::timeout;
use tonic::Code;
use weft_proto::weft::node::v1::{ContainerState, RestartPolicy};

use super::{Launched, PodTask};
use crate::inject::HOST_IMAGE;
use crate::launcher::container::{self, Role};
use crate::launcher::failure::Failure;
use crate::launcher::volumes::Scope;

/// How long the node's watch may lag behind its answers.
const WATCH_DEADLINE: Duration = Duration::from_secs(10);

impl PodTask {
    /// Makes sure that a container was made and started. One that ended stays ended where that was its purpose.
    pub(super) async fn ensure(
        &self,
        launched: &Launched,
        role: Role,
        container: &Container,
    ) -> Result<(), Failure> {
        let id = self.name.container(&container.name);
        match self.context.world.read(|state| state.container_state(&id)) {
            ContainerState::Running | ContainerState::Restarting => return Ok(()),
            ContainerState::Exited if !is_endless(launched, role) => return Ok(()),
            ContainerState::Exited | ContainerState::Created => {}
            ContainerState::Unspecified | ContainerState::Removed => {
                self.make(launched, role, container).await?;
            }
        }
        self.start(&id).await?;
        self.until_seen(container, &id).await
    }

    /// Makes containers that are to be started later.
    pub(super) async fn make_ahead(
        &self,
        launched: &Launched,
        containers: &[Container],
    ) -> Result<(), Failure> {
        let missing = containers.iter().filter(|container| {
            let id = self.name.container(&container.name);
            let state = self.context.world.read(|state| state.container_state(&id));
            matches!(state, ContainerState::Unspecified | ContainerState::Removed)
        });
        let making = missing.map(|container| self.make(launched, Role::Main, container));
        try_join_all(making).await.map(drop)
    }

    /// Starts a container again that ended although it should run for ever.
    pub(super) async fn revive(
        &self,
        launched: &Launched,
        role: Role,
        container: &Container,
    ) -> Result<(), Failure> {
        let id = self.name.container(&container.name);
        if self.start(&id).await.is_ok() {
            return Ok(());
        }
        self.context.node.remove_container(id.clone()).await?;
        self.make(launched, role, container).await?;
        self.start(&id).await
    }

    async fn make(
        &self,
        launched: &Launched,
        role: Role,
        container: &Container,
    ) -> Result<(), Failure> {
        let scope = Scope {
            pod: &launched.pod,
            sources: &launched.sources,
            scratch: &launched.scratch,
        };
        let request = container::request(&self.name, role, container, &scope)?;
        let image = container.image.as_deref().unwrap_or_default();
        if image != HOST_IMAGE {
            // Says that the image is missing better than the container could, and knows its user.
            let image = self.context.node.inspect_image(image).await?;
            if request.user.is_empty() {
                container::refuse_sidecar_user(role, container, &image.user)?;
            }
        }
        match self.context.node.create_container(request).await {
            // Made ahead, which the watch has not told yet: what an attempt leaves behind goes with its sandbox.
            Err(Failure::Node { status, .. }) if status.code() == Code::AlreadyExists => Ok(()),
            made => made.map(drop),
        }
    }

    async fn start(&self, id: &str) -> Result<(), Failure> {
        self.context
            .node
            .start_container(id.to_owned())
            .await
            .map(drop)
    }

    /// The world has one writer, the watch: what follows relies on it having seen the container.
    async fn until_seen(&self, container: &Container, id: &str) -> Result<(), Failure> {
        let seen = self.context.world.until(|state| {
            let state = state.container_state(id);
            let is_new = matches!(state, ContainerState::Unspecified | ContainerState::Created);
            (!is_new).then_some(())
        });
        timeout(WATCH_DEADLINE, seen)
            .await
            .map_err(|_| Failure::ContainerGone {
                container: container.name.clone(),
            })
    }
}

/// Whether a container of that part is meant to run as long as its pod.
pub(super) fn is_endless(launched: &Launched, role: Role) -> bool {
    match role {
        Role::Sidecar => true,
        Role::Init => false,
        Role::Main => container::restart_policy(&launched.pod) == RestartPolicy::Always,
    }
}
