//! Looks after a pod that runs: probes, containers that end, containers that vanish.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use tokio::time::sleep;
use tracing::warn;
use weft_proto::weft::node::v1::ContainerState;

use super::containers::is_endless;
use super::{Ended, Launched, PodTask};
use crate::launcher::container::{Role, all};
use crate::launcher::failure::Failure;
use crate::launcher::probes::Prober;
use crate::launcher::status::{End, has_succeeded};
use crate::launcher::world::State;

/// Before a container is started again that its shim has given up.
const REVIVAL_PAUSE: Duration = Duration::from_secs(1);

impl PodTask {
    /// Returns when the pod has ended or can no longer be looked after.
    pub(super) async fn supervise(&self, launched: &Launched) -> Ended {
        let spec = launched.spec();
        let lasting: Vec<(Role, &Container)> =
            all(&spec).filter(|(role, _)| *role != Role::Init).collect();
        let probers: Vec<Prober<'_>> = lasting
            .iter()
            .map(|(_, container)| self.prober(launched, container))
            .collect();
        let mut probing: FuturesUnordered<_> = probers
            .iter()
            .map(|prober| {
                prober.run(launched.was_adopted && self.was_ready(&prober.container.name))
            })
            .collect();
        if launched.was_adopted {
            for prober in &probers {
                let name = prober.container.name.clone();
                let was_ready = self.was_ready(&name);
                self.progress.send_modify(|progress| {
                    progress.ready.insert(name, was_ready);
                });
            }
        }
        self.progress
            .send_modify(|progress| progress.is_quiet = false);
        tokio::select! {
            end = self.until_finished(launched, &spec) => Ended::Finished(end),
            container = self.until_gone(&lasting) => Ended::Failed(Failure::ContainerGone { container }),
            failure = self.keep_reviving(launched, &lasting) => Ended::Failed(failure),
            Some(()) = probing.next() => unreachable!("probers never return"),
        }
    }

    fn prober<'a>(&'a self, launched: &'a Launched, container: &'a Container) -> Prober<'a> {
        let address = launched.sandbox.ipv4.parse().unwrap_or(Ipv4Addr::LOCALHOST);
        Prober {
            context: &self.context,
            name: &self.name,
            container,
            address: IpAddr::V4(address),
            progress: &self.progress,
            grace: self.grace(),
        }
    }

    /// Whether a former launcher found the container ready.
    fn was_ready(&self, container: &str) -> bool {
        let status = self.first.status.as_ref();
        let main = status.and_then(|status| status.container_statuses.as_ref());
        let init = status.and_then(|status| status.init_container_statuses.as_ref());
        let mut all = main.into_iter().flatten().chain(init.into_iter().flatten());
        all.any(|status| status.name == container && status.ready)
    }

    /// Pods that may end do so when all containers of the application have.
    async fn until_finished(&self, launched: &Launched, spec: &PodSpec) -> End {
        if is_endless(launched, Role::Main) {
            return std::future::pending().await;
        }
        let ids: Vec<String> = spec
            .containers
            .iter()
            .map(|container| self.name.container(&container.name))
            .collect();
        self.context
            .world
            .until(|state| {
                let containers: Option<Vec<_>> =
                    ids.iter().map(|id| state.containers.get(id)).collect();
                let containers = containers?;
                let have_ended = containers
                    .iter()
                    .all(|one| one.state() == ContainerState::Exited);
                let have_succeeded = containers.iter().all(|one| has_succeeded(one));
                have_ended.then_some(if have_succeeded {
                    End::Succeeded
                } else {
                    End::Failed
                })
            })
            .await
    }

    /// Returns the first container that the node no longer knows.
    async fn until_gone(&self, lasting: &[(Role, &Container)]) -> String {
        self.context
            .world
            .until(|state| {
                let gone = lasting.iter().find(|(_, container)| {
                    !state
                        .containers
                        .contains_key(&self.name.container(&container.name))
                });
                gone.map(|(_, container)| container.name.clone())
            })
            .await
    }

    /// Starts again what should not have ended: stopped by a probe, or its shim was killed.
    async fn keep_reviving(&self, launched: &Launched, lasting: &[(Role, &Container)]) -> Failure {
        let endless: Vec<_> = lasting
            .iter()
            .filter(|(role, _)| is_endless(launched, *role))
            .copied()
            .collect();
        let ended = |state: &State| {
            let mut endless = endless.iter();
            let found = endless.find(|(_, container)| {
                let id = self.name.container(&container.name);
                state.container_state(&id) == ContainerState::Exited
            });
            found.copied()
        };
        loop {
            self.context.world.until(ended).await;
            sleep(REVIVAL_PAUSE).await;
            let Some((role, container)) = self.context.world.read(ended) else {
                continue;
            };
            warn!(container = container.name, "started again");
            if let Err(failure) = self.revive(launched, role, container).await {
                return failure;
            }
        }
    }
}
