//! A container of a pod as the node's request to make it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use weft_proto::names::{SERVICE_SUFFIX, SIDECAR_UID, TRUST_DOMAIN};
use weft_proto::weft::node::v1::{CreateContainerRequest, RestartPolicy};

use super::environment::Environment;
use super::failure::Failure;
use super::quantity;
use super::volumes::{self, Scope};
use super::world::ObjectName;
use crate::inject::HOST_IMAGE;

/// Overrides the pod's restart policy: `never`, `on-failure`, `always`.
const RESTART: &str = "weft.dev/restart";
/// A user of the image by name, which Kubernetes has no field for.
const USER: &str = "weft.dev/user";
/// The signal that asks to end.
const STOP_SIGNAL: &str = "weft.dev/stop-signal";
/// How many processes and threads there may be.
const PIDS_LIMIT: &str = "weft.dev/pids-limit";
const PROJECT: &str = "weft.dev/project";

/// Where weft itself is in a root filesystem of the host's programs.
const HOST_PROGRAM: &str = "/weft";

/// What part a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Starts before and ends after the application.
    Sidecar,
    /// Runs to its end before the application.
    Init,
    /// The application.
    Main,
}

impl Role {
    /// The part of one of a pod's init containers.
    pub(super) fn of_init(container: &Container) -> Self {
        match container.restart_policy.as_deref() {
            Some("Always") => Role::Sidecar,
            _ => Role::Init,
        }
    }
}

/// All containers of a pod, with their parts, in the order they start.
pub(super) fn all(spec: &PodSpec) -> impl Iterator<Item = (Role, &Container)> {
    let init = spec.init_containers.iter().flatten();
    init.map(|container| (Role::of_init(container), container))
        .chain(
            spec.containers
                .iter()
                .map(|container| (Role::Main, container)),
        )
}

/// When an ended application is started again.
pub(super) fn restart_policy(pod: &Pod) -> RestartPolicy {
    let spec = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref());
    match annotation(pod, RESTART).or(spec) {
        Some("never" | "no" | "Never") => RestartPolicy::Never,
        Some("on-failure" | "OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

pub(super) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// The request that makes a container.
///
/// # Errors
/// Where the spec asks for what weft does not have.
pub(super) fn request(
    name: &ObjectName,
    role: Role,
    container: &Container,
    scope: &Scope<'_>,
) -> Result<CreateContainerRequest, Failure> {
    let pod = scope.pod;
    let environment = Environment::of(container, pod, scope.sources)?;
    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        let words = words.iter().flatten();
        words.map(|word| environment.expand(word)).collect()
    };
    let image = container.image.clone().unwrap_or_default();
    let host_programs = image == HOST_IMAGE;
    let mut entrypoint = expand(&container.command);
    if host_programs && entrypoint.is_empty() {
        entrypoint.push(HOST_PROGRAM.to_owned());
    }
    let context = Context::of(name, role, container, pod)?;
    let limit = |resource: &str| container.resources.as_ref()?.limits.as_ref()?.get(resource);
    Ok(CreateContainerRequest {
        id: name.container(&container.name),
        sandbox_id: name.sandbox(),
        image: if host_programs { String::new() } else { image },
        host_programs,
        entrypoint,
        arguments: expand(&container.args),
        environment: environment.lines(),
        working_directory: container.working_dir.clone().unwrap_or_default(),
        user: context.user,
        mounts: volumes::mounts(container, scope)?,
        read_only_root: context.read_only_root,
        capabilities_added: context.capabilities_added,
        capabilities_dropped: context.capabilities_dropped,
        memory_bytes: limit("memory").and_then(quantity::bytes).unwrap_or(0),
        cpu_millis: limit("cpu").and_then(quantity::millis).unwrap_or(0),
        pids: pids(role, pod)?,
        restart: restart(role, pod).into(),
        stop_signal: stop_signal(role, container, pod),
        terminal: container.tty.unwrap_or(false),
        labels: labels(name, container, pod),
        dns_search: vec![
            format!("{}.{SERVICE_SUFFIX}", name.namespace),
            SERVICE_SUFFIX.to_owned(),
            TRUST_DOMAIN.to_owned(),
        ],
        hosts: hosts(pod),
    })
}

/// What a container may do, and as whom.
struct Context {
    user: String,
    read_only_root: bool,
    capabilities_added: Vec<String>,
    capabilities_dropped: Vec<String>,
}

impl Context {
    fn of(
        name: &ObjectName,
        role: Role,
        container: &Container,
        pod: &Pod,
    ) -> Result<Self, Failure> {
        let own = container.security_context.clone().unwrap_or_default();
        let of_pod = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.clone())
            .unwrap_or_default();
        if own.privileged == Some(true) {
            let container = &container.name;
            return Err(Failure::Spec(format!(
                "container {container} of {name} wants to be privileged, which no container of the mesh can be: remove securityContext.privileged"
            )));
        }
        let user = own.run_as_user.or(of_pod.run_as_user);
        let group = own.run_as_group.or(of_pod.run_as_group);
        let named = annotation(pod, USER).filter(|_| role != Role::Sidecar);
        let user = match (user, group, named) {
            (Some(user), Some(group), _) => format!("{user}:{group}"),
            (Some(user), None, _) => user.to_string(),
            (None, _, Some(named)) => named.to_owned(),
            (None, Some(group), None) => format!("0:{group}"),
            (None, None, None) => String::new(),
        };
        refuse_sidecar_user(role, container, &user)?;
        let capabilities = own.capabilities.unwrap_or_default();
        Ok(Self {
            user,
            read_only_root: own.read_only_root_filesystem.unwrap_or(false),
            capabilities_added: capabilities.add.unwrap_or_default(),
            capabilities_dropped: capabilities.drop.unwrap_or_default(),
        })
    }
}

/// The traffic of the sidecar's user is not redirected: nobody else may be it.
pub(super) fn refuse_sidecar_user(
    role: Role,
    container: &Container,
    user: &str,
) -> Result<(), Failure> {
    let sidecar = SIDECAR_UID.to_string();
    if role == Role::Sidecar || !user.split(':').any(|id| id == sidecar) {
        return Ok(());
    }
    let container = &container.name;
    Err(Failure::Spec(format!(
        "container {container} runs as {user}, but {sidecar} is the sidecar's: give it another user"
    )))
}

fn restart(role: Role, pod: &Pod) -> RestartPolicy {
    match (role, restart_policy(pod)) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        (Role::Init, RestartPolicy::Never) => RestartPolicy::Never,
        (Role::Init, _) => RestartPolicy::OnFailure,
        (Role::Main, policy) => policy,
    }
}

fn pids(role: Role, pod: &Pod) -> Result<u64, Failure> {
    let limit = annotation(pod, PIDS_LIMIT).filter(|_| role != Role::Sidecar);
    let Some(limit) = limit else {
        return Ok(0);
    };
    limit.parse().map_err(|_| {
        Failure::Spec(format!(
            "the annotation {PIDS_LIMIT} is {limit:?}: it must be a number"
        ))
    })
}

fn stop_signal(role: Role, container: &Container, pod: &Pod) -> String {
    let own = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let of_pod = annotation(pod, STOP_SIGNAL).filter(|_| role == Role::Main);
    own.or(of_pod).unwrap_or_default().to_owned()
}

fn labels(name: &ObjectName, container: &Container, pod: &Pod) -> BTreeMap<String, String> {
    let labels = pod.metadata.labels.as_ref();
    let project = labels.and_then(|labels| labels.get(PROJECT)).cloned();
    let mut all = sandbox_labels(name, pod);
    all.insert("container".to_owned(), container.name.clone());
    all.insert("project".to_owned(), project.unwrap_or_default());
    all
}

/// What a sandbox is labelled with: by `uid` the launcher knows its own again.
pub(super) fn sandbox_labels(name: &ObjectName, pod: &Pod) -> BTreeMap<String, String> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    [
        ("namespace", name.namespace.clone()),
        ("pod", name.name.clone()),
        ("uid", uid),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn hosts(pod: &Pod) -> Vec<String> {
    let aliases = pod
        .spec
        .iter()
        .flat_map(|spec| spec.host_aliases.iter().flatten());
    aliases
        .flat_map(|alias| {
            let names = alias.hostnames.iter().flatten();
            names.map(|name| format!("{} {name}", alias.ip))
        })
        .collect()
}

#[cfg(test)]
mod tests;
