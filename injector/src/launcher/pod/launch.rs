//! The steps of a launch, in the order that architecture.md gives them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};
use weft_proto::names::HEALTH_PORT;
use weft_proto::weft::node::v1::ContainerState;

use super::{Launched, PodTask};
use crate::broker::Claim;
use crate::inject::{Injected, SIDECAR, inject};
use crate::launcher::container::Role;
use crate::launcher::dependencies::{self, Dependency};
use crate::launcher::failure::Failure;
use crate::launcher::sources::Sources;
use crate::launcher::status::has_succeeded;
use crate::launcher::{probes, volumes};

/// How long a sidecar may take to get and apply its first configuration.
const SIDECAR_DEADLINE: Duration = Duration::from_secs(30);
const SIDECAR_INTERVAL: Duration = Duration::from_millis(10);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
const DEPENDENCY_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// What became of a launch.
pub(super) enum Outcome {
    Running(Box<Launched>),
    /// An init container failed in a pod that is not to be tried again.
    InitFailed,
}

impl PodTask {
    pub(super) async fn launch(&self) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let adopted = self.adopted_sandbox();
        self.progress.send_modify(|progress| {
            progress.is_quiet = adopted.is_some();
            progress.waiting = None;
        });
        let pod = self.injected().await?;
        let spec = pod.spec.clone().unwrap_or_default();
        probes::check(&spec)?;

        // Starting is work for the processors; waiting for others is not, and must not keep them from it.
        let permit = self.context.starting.acquire().await;
        let was_adopted = adopted.is_some();
        let (sandbox, claim) = match adopted {
            Some(sandbox) => (sandbox, Claim::Adopted),
            None => (self.make_sandbox(&pod).await?, Claim::Fresh),
        };
        let namespace = &self.name.namespace;
        let (pod, sources) = futures_util::try_join!(
            self.announce(&sandbox),
            Sources::fetch(&self.context.client, namespace, &spec),
        )?;
        self.publish_ports(&pod, &sandbox, claim)?;
        self.settle(&pod, &sandbox);
        let launched = Launched {
            sources,
            scratch: self.scratch(&pod)?,
            pod,
            sandbox,
            was_adopted,
        };
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let sidecars = init.iter().take_while(|one| one.name == SIDECAR).count();
        let (sidecar, init) = init.split_at(sidecars);
        // While the sidecar gets its configuration there is time to make the application, which starts later.
        futures_util::try_join!(
            self.start_sidecar(&launched, sidecar.first()),
            self.make_ahead(&launched, &spec.containers),
        )?;
        debug!(elapsed = ?began.elapsed(), "the sandbox is open");
        drop(permit);

        self.wait_for_dependencies(&launched.pod).await?;
        for container in init {
            if !self.run_init(&launched, container).await? {
                return Ok(Outcome::InitFailed);
            }
        }
        self.progress.send_modify(|progress| {
            progress.is_initialized = true;
            progress.waiting = None;
        });
        let _permit = self.context.starting.acquire().await;
        let starting = spec
            .containers
            .iter()
            .map(|container| self.ensure(&launched, Role::Main, container));
        futures_util::future::try_join_all(starting).await?;
        info!(elapsed = ?began.elapsed(), was_adopted, "the pod runs");
        Ok(Outcome::Running(Box::new(launched)))
    }

    /// The pod with its sidecar: pods that were not made by a Deployment get theirs here.
    async fn injected(&self) -> Result<Pod, Failure> {
        let pod = self
            .context
            .world
            .read(|state| state.pod(&self.name, &self.uid).cloned());
        let mut pod = pod.unwrap_or_else(|| self.first.clone()).as_ref().clone();
        let Some(spec) = pod.spec.as_mut() else {
            return Err(Failure::Spec("the pod has no spec".to_owned()));
        };
        let Injected::Added { annotations } = inject(spec, &pod.metadata, &self.context.inject)?
        else {
            return Ok(pod);
        };
        let patch = json!({
            "metadata": { "annotations": annotations },
            "spec": { "initContainers": spec.init_containers, "volumes": spec.volumes },
        });
        self.patch(&patch, "adding the sidecar to the pod").await
    }

    fn scratch(&self, pod: &Pod) -> Result<BTreeMap<String, std::path::PathBuf>, Failure> {
        let sandbox = self.name.sandbox();
        volumes::scratch_volumes(pod)
            .map(|volume| {
                let folder = self.context.scratch.folder(&sandbox, volume);
                let failed = |source| Failure::Scratch {
                    volume: volume.to_owned(),
                    source,
                };
                Ok((volume.to_owned(), folder.map_err(failed)?))
            })
            .collect()
    }

    /// Starts the sidecar, waits until it has its configuration, and then opens the sandbox.
    async fn start_sidecar(
        &self,
        launched: &Launched,
        container: Option<&Container>,
    ) -> Result<(), Failure> {
        let Some(container) = container else {
            return Ok(());
        };
        let has_run = self.has_application(launched);
        self.ensure(launched, Role::Sidecar, container).await?;
        // Where the application exists already the rules are open, and must not wait for a sidecar that a former
        // launcher saw ready.
        if has_run {
            return Ok(());
        }
        self.until_sidecar_is_ready(&launched.sandbox.id, container)
            .await?;
        let rules = self.open_rules(&launched.pod)?;
        self.context
            .node
            .apply_rules(launched.sandbox.id.clone(), rules)
            .await?;
        self.progress.send_modify(|progress| {
            progress.ready.insert(SIDECAR.to_owned(), true);
        });
        Ok(())
    }

    fn has_application(&self, launched: &Launched) -> bool {
        let spec = launched.spec();
        let mut containers = spec.containers.iter();
        self.context.world.read(|state| {
            containers.any(|container| {
                let state = state.container_state(&self.name.container(&container.name));
                !matches!(state, ContainerState::Unspecified | ContainerState::Created)
            })
        })
    }

    async fn until_sidecar_is_ready(
        &self,
        sandbox: &str,
        container: &Container,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + SIDECAR_DEADLINE;
        let health = SocketAddr::from(([127, 0, 0, 1], HEALTH_PORT));
        loop {
            let handoff = &self.context.handoff;
            let answer = handoff
                .get(sandbox, health, "/healthz/ready", &[], HEALTH_TIMEOUT)
                .await;
            let last = match answer {
                Ok(status) if status.is_success() => return Ok(()),
                Ok(status) => format!("its health answers {status}"),
                Err(error) => format!("its health does not answer: {error}"),
            };
            self.check_sidecar_lives(container)?;
            if Instant::now() > deadline {
                return Err(Failure::SidecarNotReady {
                    deadline: SIDECAR_DEADLINE,
                    last,
                });
            }
            sleep(SIDECAR_INTERVAL).await;
        }
    }

    /// A sidecar that ended for good will not become ready.
    fn check_sidecar_lives(&self, container: &Container) -> Result<(), Failure> {
        let id = self.name.container(&container.name);
        let found = self
            .context
            .world
            .read(|state| state.containers.get(&id).cloned());
        match found {
            Some(found) if found.state() == ContainerState::Exited => {
                Err(Failure::ContainerEnded {
                    container: container.name.clone(),
                    exit_code: found.exit_code,
                    reason: found.exit_reason.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    async fn wait_for_dependencies(&self, pod: &Pod) -> Result<(), Failure> {
        for dependency in dependencies::of(pod)? {
            let missing = |dependency: &Dependency| {
                self.context
                    .world
                    .read(|state| dependency.missing(pod, state))
            };
            let Some(what) = missing(&dependency) else {
                continue;
            };
            self.note_waiting("WaitingForDependency", &format!("waits for {what}"));
            let met = self
                .context
                .world
                .until(|state| dependency.missing(pod, state).is_none().then_some(()));
            timeout(DEPENDENCY_DEADLINE, met)
                .await
                .map_err(|_| Failure::Dependency {
                    what: missing(&dependency).unwrap_or(what),
                    deadline: DEPENDENCY_DEADLINE,
                })?;
        }
        Ok(())
    }

    /// Runs an init container to its end; `false` where it failed and is not to be tried again.
    async fn run_init(&self, launched: &Launched, container: &Container) -> Result<bool, Failure> {
        let role = Role::of_init(container);
        self.note_waiting("PodInitializing", &format!("runs {}", container.name));
        self.ensure(launched, role, container).await?;
        if role == Role::Sidecar {
            return Ok(true);
        }
        let id = self.name.container(&container.name);
        let ended = self
            .context
            .world
            .until(|state| match state.containers.get(&id) {
                None => Some(None),
                Some(found) if found.state() == ContainerState::Exited => Some(Some(found.clone())),
                Some(_) => None,
            });
        // As long as it takes: only a deletion ends this wait.
        match ended.await {
            Some(found) => Ok(has_succeeded(&found)),
            None => Err(Failure::ContainerGone {
                container: container.name.clone(),
            }),
        }
    }

    fn note_waiting(&self, reason: &str, message: &str) {
        self.progress.send_modify(|progress| {
            progress.waiting = Some((reason.to_owned(), message.to_owned()));
            progress.is_quiet = false;
        });
    }
}
