//! What is told about a pod: its `PodStatus`, computed from how far its launch is and what its containers do.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState as State, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use weft_proto::weft::node::v1::{Container, ContainerState};

use super::container::{Role, all};
use super::world::ObjectName;

/// How far a pod's launch is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// While true nothing is told: a pod that is adopted must not seem to start again.
    pub(super) is_quiet: bool,
    /// Its addresses, once it has a sandbox.
    pub(super) addresses: Vec<String>,
    /// What it waits for, or why the last attempt failed: a word and a sentence.
    pub(super) waiting: Option<(String, String)>,
    /// Whether its init containers are through.
    pub(super) is_initialized: bool,
    /// Which containers are ready.
    pub(super) ready: BTreeMap<String, bool>,
    /// Whether it is on its way out: never ready again.
    pub(super) is_ending: bool,
    /// How it ended for good.
    pub(super) end: Option<End>,
}

/// How a pod that need not run for ever ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    Failed,
}

/// A pod's condition `Ready`.
pub(super) fn is_ready(pod: &Pod) -> bool {
    condition_of(pod.status.as_ref(), "Ready").is_some_and(|condition| condition.status == "True")
}

/// A pod's phase; `Pending` before it has one.
pub(super) fn phase(pod: &Pod) -> &str {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase.filter(|phase| !phase.is_empty()).unwrap_or("Pending")
}

pub(super) fn now() -> Time {
    // Kubernetes' times have whole seconds.
    let now = jiff::Timestamp::now();
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The status of a pod; `known` is the one that was told before.
pub(super) fn compute(
    pod: &Pod,
    progress: &Progress,
    containers: &BTreeMap<String, &Container>,
    known: Option<&PodStatus>,
) -> PodStatus {
    let name = ObjectName::of(&pod.metadata);
    let Some(spec) = &pod.spec else {
        return PodStatus::default();
    };
    let described: Vec<(Role, ContainerStatus)> = all(spec)
        .map(|(role, container)| {
            let running = containers.get(&name.container(&container.name)).copied();
            (role, container_status(role, container, running, progress))
        })
        .collect();
    let are_ready = !spec.containers.is_empty() && described.iter().all(|(_, status)| status.ready);
    let (main, init): (Vec<_>, Vec<_>) = described
        .into_iter()
        .partition(|(role, _)| *role == Role::Main);
    let main: Vec<_> = main.into_iter().map(|(_, status)| status).collect();
    let init = init.into_iter().map(|(_, status)| status).collect();
    let is_ready =
        are_ready && progress.is_initialized && !progress.is_ending && progress.end.is_none();
    let phase = phase_of(progress, &main);
    let waiting = progress.waiting.as_ref().filter(|_| progress.end.is_none());
    let conditions = conditions(progress, are_ready, is_ready, known);
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: waiting.map(|(reason, _)| reason.clone()),
        message: waiting.map(|(_, message)| message.clone()),
        conditions: Some(conditions),
        pod_ip: progress.addresses.first().cloned(),
        pod_ips: Some(
            progress
                .addresses
                .iter()
                .map(|ip| PodIP { ip: ip.clone() })
                .collect(),
        ),
        start_time: known
            .and_then(|known| known.start_time.clone())
            .or_else(|| Some(now())),
        container_statuses: Some(main),
        init_container_statuses: Some(init),
        ..PodStatus::default()
    }
}

fn phase_of(progress: &Progress, main: &[ContainerStatus]) -> &'static str {
    match progress.end {
        Some(End::Succeeded) => return "Succeeded",
        Some(End::Failed) => return "Failed",
        None => {}
    }
    let has_started = |status: &ContainerStatus| status.started == Some(true);
    if progress.is_initialized && main.iter().any(has_started) {
        "Running"
    } else {
        "Pending"
    }
}

fn conditions(
    progress: &Progress,
    are_ready: bool,
    is_ready: bool,
    known: Option<&PodStatus>,
) -> Vec<PodCondition> {
    let reason = match (&progress.waiting, progress.is_ending, progress.end) {
        (_, true, _) => Some((
            "Terminating".to_owned(),
            "the pod is being deleted".to_owned(),
        )),
        (_, _, Some(_)) => Some((
            "PodCompleted".to_owned(),
            "its containers have ended".to_owned(),
        )),
        (Some(waiting), _, _) => Some(waiting.clone()),
        (None, false, None) => Some(("ContainersNotReady".to_owned(), String::new())),
    };
    let has_sandbox = !progress.addresses.is_empty();
    [
        ("PodReadyToStartContainers", has_sandbox),
        ("Initialized", progress.is_initialized),
        ("ContainersReady", are_ready),
        ("Ready", is_ready),
    ]
    .map(|(kind, holds)| {
        let status = if holds { "True" } else { "False" };
        let before = condition_of(known, kind).filter(|before| before.status == status);
        let why = reason.as_ref().filter(|_| !holds);
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: why.map(|(reason, _)| reason.clone()),
            message: why
                .map(|(_, message)| message.clone())
                .filter(|text| !text.is_empty()),
            last_transition_time: before
                .and_then(|before| before.last_transition_time.clone())
                .or_else(|| Some(now())),
            ..PodCondition::default()
        }
    })
    .into()
}

fn condition_of<'a>(status: Option<&'a PodStatus>, kind: &str) -> Option<&'a PodCondition> {
    let conditions = status?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn container_status(
    role: Role,
    spec: &Spec,
    container: Option<&Container>,
    progress: &Progress,
) -> ContainerStatus {
    let state = container.map_or(ContainerState::Unspecified, Container::state);
    let is_running = state == ContainerState::Running;
    let is_ready = match role {
        // An init container is ready when it has done its work.
        Role::Init => container.is_some_and(has_succeeded),
        Role::Main | Role::Sidecar => {
            is_running && progress.ready.get(&spec.name).copied().unwrap_or(false)
        }
    };
    let terminated = container
        .filter(|container| container.finished_at > 0)
        .map(terminated);
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        image_id: container
            .map(|container| container.image.clone())
            .unwrap_or_default(),
        container_id: container.map(|container| format!("weft://{}", container.id)),
        ready: is_ready,
        started: Some(is_running || container.is_some_and(|container| container.started_at > 0)),
        restart_count: container.map_or(0, |container| {
            i32::try_from(container.restarts).unwrap_or(i32::MAX)
        }),
        state: Some(container_state(container, progress)),
        last_state: (state != ContainerState::Exited)
            .then_some(terminated)
            .flatten()
            .map(|terminated| State {
                terminated: Some(terminated),
                ..State::default()
            }),
        ..ContainerStatus::default()
    }
}

fn container_state(container: Option<&Container>, progress: &Progress) -> State {
    let Some(container) = container else {
        let (reason, message) = match &progress.waiting {
            Some((reason, message)) => (reason.as_str(), message.as_str()),
            None if progress.is_initialized => ("ContainerCreating", ""),
            None => ("PodInitializing", ""),
        };
        return waiting(reason, message);
    };
    match container.state() {
        ContainerState::Running => State {
            running: Some(ContainerStateRunning {
                started_at: time(container.started_at),
            }),
            ..State::default()
        },
        ContainerState::Exited | ContainerState::Removed => State {
            terminated: Some(terminated(container)),
            ..State::default()
        },
        ContainerState::Restarting => {
            let (code, reason) = (container.exit_code, &container.exit_reason);
            waiting("CrashLoopBackOff", &format!("ended with {code}: {reason}"))
        }
        ContainerState::Created | ContainerState::Unspecified => waiting("ContainerCreating", ""),
    }
}

fn waiting(reason: &str, message: &str) -> State {
    State {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..State::default()
    }
}

fn terminated(container: &Container) -> ContainerStateTerminated {
    const SIGNALLED: i32 = 128;
    let exit_code = container.exit_code;
    ContainerStateTerminated {
        exit_code,
        reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
        message: (!container.exit_reason.is_empty()).then(|| container.exit_reason.clone()),
        signal: (exit_code > SIGNALLED).then_some(exit_code - SIGNALLED),
        started_at: time(container.started_at),
        finished_at: time(container.finished_at),
        container_id: Some(format!("weft://{}", container.id)),
    }
}

pub(super) fn has_succeeded(container: &Container) -> bool {
    container.state() == ContainerState::Exited && container.exit_code == 0
}

fn time(seconds: i64) -> Option<Time> {
    let seconds = (seconds > 0).then_some(seconds)?;
    jiff::Timestamp::from_second(seconds).ok().map(Time)
}

#[cfg(test)]
mod tests;
