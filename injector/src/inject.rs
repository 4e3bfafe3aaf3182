//! Adds the sidecar to a pod.
//!
//! [`inject`] is the one function that does it: the local launcher, `weft inject` and the admission webhook all
//! call it, so a pod is the same everywhere. It changes nothing when the sidecar is already there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, DownwardAPIVolumeFile, DownwardAPIVolumeSource,
    EmptyDirVolumeSource, HTTPGetAction, HostPathVolumeSource, ObjectFieldSelector, PodSpec, Probe,
    ResourceRequirements, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_proto::names::{
    ADMIN_PORT, HEALTH_PORT, METRICS_PORT, POD_SOCKET_DIR, SIDECAR_STATE_DIR, SIDECAR_UID,
};

use crate::bootstrap::{Node, bootstrap};

/// The name of the sidecar's container.
pub const SIDECAR: &str = "weft-proxy";
/// The image that means the host's own program.
pub const HOST_IMAGE: &str = "weft.dev/proxy:host";
/// `"false"`: no sidecar.
pub const INJECT: &str = "weft.dev/inject";
/// The bootstrap of the pod's sidecar, JSON.
pub const BOOTSTRAP: &str = "weft.dev/bootstrap";

/// Where the sidecar finds its bootstrap.
const CONFIG_DIR: &str = "/etc/weft";
const BOOTSTRAP_FILE: &str = "bootstrap.json";
const SOCKETS_VOLUME: &str = "weft-sockets";
const STATE_VOLUME: &str = "weft-state";
const CONFIG_VOLUME: &str = "weft-bootstrap";

/// What a sidecar is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectOptions {
    /// Its image.
    pub image: String,
    /// The folder of the host with the sockets of control plane and broker.
    pub socket_folder: PathBuf,
    /// What it asks of its machine.
    pub cpu_request: String,
    /// The same for memory.
    pub memory_request: String,
}

impl InjectOptions {
    /// For this machine: the host's own program.
    pub fn host(socket_folder: PathBuf) -> Self {
        Self {
            image: HOST_IMAGE.to_owned(),
            socket_folder,
            cpu_request: "10m".to_owned(),
            memory_request: "16Mi".to_owned(),
        }
    }
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injected {
    /// The sidecar was added; the pod needs these annotations too.
    Added {
        /// To be set on the pod.
        annotations: BTreeMap<String, String>,
    },
    /// It has a sidecar already.
    Present,
    /// Its annotation says that it wants none.
    OptedOut,
}

/// Why a pod can have no sidecar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// There is nothing to redirect without a network namespace of its own.
    #[error(
        "the pod uses the host's network, which weft cannot redirect: remove hostNetwork, or annotate the pod with {INJECT}: \"false\""
    )]
    HostNetwork,
    /// Its traffic would pass by the sidecar.
    #[error(
        "container {container} runs as user or group {SIDECAR_UID}, which is the sidecar's: give it another one"
    )]
    SidecarUser {
        /// Which one.
        container: String,
    },
    /// The sidecar needs the port.
    #[error(
        "container {container} uses port {port}, but {ADMIN_PORT}-{HEALTH_PORT} are the sidecar's: use another one"
    )]
    SidecarPort {
        /// Which one.
        container: String,
        /// Its port.
        port: i32,
    },
    /// A container or volume has the name of one of the sidecar's.
    #[error("the name {name} is the sidecar's: rename the pod's own {what}")]
    NameTaken {
        /// "container" or "volume".
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// Adds the sidecar to a pod, or says why it is not added.
///
/// The sidecar becomes the first init container with `restartPolicy: Always` (a native sidecar): it starts before
/// everything else of the pod and ends after it.
///
/// # Errors
/// Where a sidecar could not do its work in this pod; the pod is then unchanged.
pub fn inject(
    pod: &mut PodSpec,
    meta: &ObjectMeta,
    options: &InjectOptions,
) -> Result<Injected, InjectError> {
    if opted_out(meta) {
        return Ok(Injected::OptedOut);
    }
    if is_injected(pod) {
        return Ok(Injected::Present);
    }
    check(pod)?;

    let node = Node::of(meta, pod.service_account_name.as_deref());
    pod.init_containers
        .get_or_insert_default()
        .insert(0, sidecar(options));
    pod.volumes.get_or_insert_default().extend(volumes(options));
    Ok(Injected::Added {
        annotations: [(BOOTSTRAP.to_owned(), bootstrap(&node).to_string())].into(),
    })
}

/// Whether a pod has a sidecar.
pub fn is_injected(pod: &PodSpec) -> bool {
    pod.init_containers
        .iter()
        .flatten()
        .any(|container| container.name == SIDECAR)
}

/// Whether a pod says that it wants no sidecar.
pub fn opted_out(meta: &ObjectMeta) -> bool {
    let annotations = meta.annotations.as_ref();
    annotations
        .and_then(|all| all.get(INJECT))
        .is_some_and(|value| value == "false")
}

fn check(pod: &PodSpec) -> Result<(), InjectError> {
    if pod.host_network == Some(true) {
        return Err(InjectError::HostNetwork);
    }
    let of_pod = pod.security_context.as_ref();
    let user = of_pod.and_then(|context| context.run_as_user);
    let group = of_pod.and_then(|context| context.run_as_group);
    for container in pod.init_containers.iter().flatten().chain(&pod.containers) {
        check_container(container, user, group)?;
    }
    for volume in pod.volumes.iter().flatten() {
        if [SOCKETS_VOLUME, STATE_VOLUME, CONFIG_VOLUME].contains(&volume.name.as_str()) {
            return Err(InjectError::NameTaken {
                what: "volume",
                name: volume.name.clone(),
            });
        }
    }
    Ok(())
}

fn check_container(
    container: &Container,
    pod_user: Option<i64>,
    pod_group: Option<i64>,
) -> Result<(), InjectError> {
    let name = &container.name;
    if name == SIDECAR {
        return Err(InjectError::NameTaken {
            what: "container",
            name: name.clone(),
        });
    }
    let context = container.security_context.as_ref();
    let user = context.and_then(|context| context.run_as_user).or(pod_user);
    let group = context
        .and_then(|context| context.run_as_group)
        .or(pod_group);
    if [user, group].contains(&Some(i64::from(SIDECAR_UID))) {
        return Err(InjectError::SidecarUser {
            container: name.clone(),
        });
    }
    let reserved = i32::from(ADMIN_PORT)..=i32::from(HEALTH_PORT);
    let ports = container
        .ports
        .iter()
        .flatten()
        .map(|port| port.container_port);
    match ports.into_iter().find(|port| reserved.contains(port)) {
        Some(port) => Err(InjectError::SidecarPort {
            container: name.clone(),
            port,
        }),
        None => Ok(()),
    }
}

fn sidecar(options: &InjectOptions) -> Container {
    Container {
        name: SIDECAR.to_owned(),
        image: Some(options.image.clone()),
        args: Some(arguments()),
        restart_policy: Some("Always".to_owned()),
        ports: Some(vec![
            port("weft-metrics", METRICS_PORT),
            port("weft-health", HEALTH_PORT),
        ]),
        resources: Some(ResourceRequirements {
            requests: Some(
                [
                    ("cpu".to_owned(), Quantity(options.cpu_request.clone())),
                    (
                        "memory".to_owned(),
                        Quantity(options.memory_request.clone()),
                    ),
                ]
                .into(),
            ),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security_context()),
        startup_probe: Some(probe(1, 60)),
        readiness_probe: Some(probe(10, 3)),
        volume_mounts: Some(vec![
            mount(SOCKETS_VOLUME, POD_SOCKET_DIR, true),
            mount(STATE_VOLUME, SIDECAR_STATE_DIR, false),
            mount(CONFIG_VOLUME, CONFIG_DIR, true),
        ]),
        ..Container::default()
    }
}

fn arguments() -> Vec<String> {
    let file = format!("{CONFIG_DIR}/{BOOTSTRAP_FILE}");
    ["proxy", "--sidecar", "-c", &file]
        .map(str::to_owned)
        .into()
}

fn security_context() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(i64::from(SIDECAR_UID)),
        run_as_group: Some(i64::from(SIDECAR_UID)),
        run_as_non_root: Some(true),
        read_only_root_filesystem: Some(true),
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        ..SecurityContext::default()
    }
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz/ready".to_owned()),
            port: IntOrString::Int(i32::from(HEALTH_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(1),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn volumes(options: &InjectOptions) -> [Volume; 3] {
    let sockets = Volume {
        name: SOCKETS_VOLUME.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: options.socket_folder.to_string_lossy().into_owned(),
            // The folder, not the sockets in it: a restarted control plane makes new ones.
            type_: Some("Directory".to_owned()),
        }),
        ..Volume::default()
    };
    let state = Volume {
        name: STATE_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity("16Mi".to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    };
    let config = Volume {
        name: CONFIG_VOLUME.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![DownwardAPIVolumeFile {
                path: BOOTSTRAP_FILE.to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    field_path: format!("metadata.annotations['{BOOTSTRAP}']"),
                    ..ObjectFieldSelector::default()
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    };
    [sockets, state, config]
}

#[cfg(test)]
mod tests;
