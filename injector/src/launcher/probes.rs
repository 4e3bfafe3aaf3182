//! Whether a container is started, ready and alive, by its probes.
//!
//! One [`Prober`] follows one container through all its runs. Until the first success probes come quickly,
//! whatever their period: a pod should serve as soon as it can.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use weft_proto::weft::node::v1::ContainerState;

use super::Context;
use super::failure::Failure;
use super::status::Progress;
use super::world::ObjectName;

mod attempt;
mod times;

use times::Times;

const QUICK: Duration = Duration::from_millis(20);
/// How long a container without probes may take to listen on its ports.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);

/// Follows one container.
pub(super) struct Prober<'a> {
    pub(super) context: &'a Context,
    pub(super) name: &'a ObjectName,
    pub(super) container: &'a Container,
    /// The pod's own address.
    pub(super) address: IpAddr,
    pub(super) progress: &'a watch::Sender<Progress>,
    /// How long the application may take to end where it must be restarted.
    pub(super) grace: Duration,
}

/// Says which probes weft cannot do.
///
/// # Errors
/// Names container and probe.
pub(super) fn check(spec: &PodSpec) -> Result<(), Failure> {
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let probes = [
            ("startupProbe", &container.startup_probe),
            ("readinessProbe", &container.readiness_probe),
            ("livenessProbe", &container.liveness_probe),
        ];
        for (field, probe) in probes {
            if probe.as_ref().is_some_and(|probe| probe.grpc.is_some()) {
                let name = &container.name;
                return Err(Failure::Spec(format!(
                    "container {name}: {field}.grpc is not supported: use exec, httpGet or tcpSocket"
                )));
            }
        }
    }
    Ok(())
}

impl Prober<'_> {
    /// Never returns. `was_ready`: the container is known to be ready, from before the launcher was started.
    pub(super) async fn run(&self, was_ready: bool) {
        let id = self.name.container(&self.container.name);
        let mut was_ready = was_ready;
        loop {
            let run = self
                .context
                .world
                .until(|state| {
                    let container = state.containers.get(&id)?;
                    let is_running = container.state() == ContainerState::Running;
                    // Not by its process: a sidecar's may be relieved by a newer one while it runs.
                    is_running.then_some((container.restarts, container.started_at))
                })
                .await;
            let ended = self.context.world.until(|state| {
                let container = state.containers.get(&id);
                let same = container.is_some_and(|container| {
                    container.state() == ContainerState::Running
                        && (container.restarts, container.started_at) == run
                });
                (!same).then_some(())
            });
            tokio::select! {
                () = ended => {}
                () = self.follow(was_ready) => {}
            }
            self.set_ready(false);
            was_ready = false;
        }
    }

    /// One run of the container; never returns.
    async fn follow(&self, was_ready: bool) {
        if was_ready {
            self.set_ready(true);
        } else if let Some(probe) = &self.container.startup_probe {
            self.startup(probe).await;
        }
        tokio::join!(self.readiness(was_ready), self.liveness());
    }

    /// Returns when the container has started; restarts it where it takes too long.
    async fn startup(&self, probe: &Probe) {
        let times = Times::of(probe);
        let patience = times.initial_delay + times.period * times.failure_threshold;
        let deadline = Instant::now() + patience;
        let mut pause = QUICK;
        loop {
            match self.attempt(probe, times.timeout).await {
                Ok(()) => return,
                Err(why) if Instant::now() > deadline => {
                    self.restart("startupProbe", &why).await;
                    return std::future::pending().await;
                }
                Err(why) => self.note(&format!("startupProbe: {why}")),
            }
            sleep(pause).await;
            pause = (pause * 2).min(times.period);
        }
    }

    async fn readiness(&self, was_ready: bool) {
        let Some(probe) = &self.container.readiness_probe else {
            if !was_ready {
                self.until_listening().await;
                self.set_ready(true);
            }
            return std::future::pending().await;
        };
        let times = Times::of(probe);
        if !was_ready {
            sleep(times.initial_delay).await;
        }
        let (mut is_ready, mut successes, mut failures) = (was_ready, 0, 0);
        let mut pause = QUICK;
        loop {
            match self.attempt(probe, times.timeout).await {
                Ok(()) => {
                    (successes, failures) = (successes + 1, 0);
                    if !is_ready && successes >= times.success_threshold {
                        is_ready = true;
                        self.set_ready(true);
                    }
                }
                Err(why) => {
                    (successes, failures) = (0, failures + 1);
                    if !is_ready {
                        self.note(&format!("readinessProbe: {why}"));
                    } else if failures >= times.failure_threshold {
                        is_ready = false;
                        pause = QUICK;
                        self.set_ready(false);
                        self.note(&format!("readinessProbe: {why}"));
                    }
                }
            }
            if is_ready {
                sleep(times.period).await;
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(times.period);
            }
        }
    }

    async fn liveness(&self) {
        let Some(probe) = &self.container.liveness_probe else {
            return std::future::pending().await;
        };
        let times = Times::of(probe);
        sleep(times.initial_delay).await;
        let mut failures = 0;
        loop {
            sleep(times.period).await;
            match self.attempt(probe, times.timeout).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    if failures >= times.failure_threshold {
                        self.restart("livenessProbe", &why).await;
                        return std::future::pending().await;
                    }
                }
            }
        }
    }

    /// Its declared ports listen, or it has had its time.
    async fn until_listening(&self) {
        let ports = self.container.ports.iter().flatten();
        let ports: BTreeSet<u32> = ports
            .filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")))
            .filter_map(|port| u32::try_from(port.container_port).ok())
            .collect();
        if ports.is_empty() {
            return;
        }
        let sandbox = self.name.sandbox();
        let listening = self.context.listening.until(&sandbox, &ports);
        if tokio::time::timeout(LISTEN_PATIENCE, listening)
            .await
            .is_err()
        {
            debug!(pod = %self.name, ?ports, "taken for ready without listening on all its ports");
        }
    }

    async fn restart(&self, probe: &str, why: &str) {
        let id = self.name.container(&self.container.name);
        warn!(container = %id, probe, why, "restarted by its probe");
        self.set_ready(false);
        self.note(&format!("{probe}: {why}"));
        // Whoever supervises the pod starts it again, as it does with any container that ends.
        if let Err(error) = self.context.node.stop_container(id, self.grace).await {
            warn!(%error, "the container could not be stopped");
        }
    }

    fn set_ready(&self, is_ready: bool) {
        let name = &self.container.name;
        self.progress.send_if_modified(|progress| {
            if is_ready {
                progress.waiting = None;
            }
            progress.ready.insert(name.clone(), is_ready) != Some(is_ready)
        });
    }

    fn note(&self, why: &str) {
        let waiting = Some((
            "Unhealthy".to_owned(),
            format!("{}: {why}", self.container.name),
        ));
        self.progress.send_if_modified(|progress| {
            let is_new = progress.waiting != waiting;
            progress.waiting = waiting;
            is_new
        });
    }
}
