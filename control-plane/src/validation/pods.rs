//! What is wrong with a pod's specification, alone or inside a workload.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, Probe};
use serde_json::json;

use super::names::is_label;
use super::path::Path;
use crate::refusal::Cause;

/// All that is wrong with it.
pub(super) fn causes(spec: &PodSpec, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    if spec.containers.is_empty() {
        causes.push(Cause::required(
            path.field("containers"),
            "a pod has at least one container",
        ));
    }
    if let Some(policy) = spec.restart_policy.as_deref() {
        let known = ["Always", "OnFailure", "Never"];
        if !known.contains(&policy) {
            causes.push(Cause::not_supported(
                path.field("restartPolicy"),
                &json!(policy),
                &known,
            ));
        }
    }
    let volumes: Vec<&str> = spec
        .volumes
        .iter()
        .flatten()
        .map(|volume| volume.name.as_str())
        .collect();
    causes.extend(duplicates(
        volumes.iter().copied(),
        &path.field("volumes"),
        "volume",
    ));

    let init = spec.init_containers.iter().flatten().enumerate();
    let init =
        init.map(|(index, container)| (path.field("initContainers").index(index), container));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, container)| (path.field("containers").index(index), container));
    let mut names = BTreeSet::new();
    for (path, container) in init.chain(main) {
        if !names.insert(container.name.as_str()) {
            let why = "another container of the pod has this name";
            causes.push(Cause::duplicate(path.field("name"), &container.name, why));
        }
        causes.extend(container_causes(container, &volumes, &path));
    }
    causes
}

fn container_causes(container: &Container, volumes: &[&str], path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !is_label(&container.name) {
        causes.push(Cause::invalid(
            path.field("name"),
            &json!(container.name),
            "must be lower-case letters, digits and dashes, at most 63",
        ));
    }
    if container
        .image
        .as_deref()
        .unwrap_or_default()
        .trim()
        .is_empty()
    {
        causes.push(Cause::required(path.field("image"), ""));
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    causes.extend(port_causes(ports, &path.field("ports")));
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            let path = path.field("env").index(index).field("name");
            causes.push(Cause::invalid(
                path,
                &json!(variable.name),
                "is no name of a variable",
            ));
        }
    }
    let mut targets = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.field("volumeMounts").index(index);
        if !volumes.contains(&mount.name.as_str()) {
            let what = format!("the pod has no volume named {:?}", mount.name);
            causes.push(Cause::not_found(path.field("name"), what));
        }
        if !mount.mount_path.starts_with('/') {
            let path = path.field("mountPath");
            causes.push(Cause::invalid(
                path,
                &json!(mount.mount_path),
                "must be an absolute path",
            ));
        } else if !targets.insert(mount.mount_path.as_str()) {
            let why = "mounted twice";
            causes.push(Cause::duplicate(
                path.field("mountPath"),
                &mount.mount_path,
                why,
            ));
        }
    }
    for (name, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        causes.extend(
            probe
                .as_ref()
                .and_then(|probe| probe_cause(probe, &path.field(name))),
        );
    }
    causes
}

fn port_causes(ports: &[ContainerPort], path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    let names = ports.iter().filter_map(|port| port.name.as_deref());
    causes.extend(duplicates(names, path, "port"));
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        causes.extend(check_port(
            port.container_port,
            &path.field("containerPort"),
        ));
        if let Some(host_port) = port.host_port {
            causes.extend(check_port(host_port, &path.field("hostPort")));
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            if protocol != "TCP" {
                causes.push(Cause::forbidden(
                    path.field("hostPort"),
                    format!("only TCP can be published, not {protocol}"),
                ));
            }
        }
        if let Some(address) = port
            .host_ip
            .as_deref()
            .filter(|address| !address.is_empty())
            && address.parse::<std::net::IpAddr>().is_err()
        {
            causes.push(Cause::invalid(
                path.field("hostIP"),
                &json!(address),
                "must be an IP address",
            ));
        }
    }
    causes
}

/// A port number that can be used.
pub(super) fn check_port(port: i32, path: &Path) -> Option<Cause> {
    (!(1..=65535).contains(&port))
        .then(|| Cause::invalid(path, &json!(port), "must be between 1 and 65535, inclusive"))
}

fn probe_cause(probe: &Probe, path: &Path) -> Option<Cause> {
    let handlers = usize::from(probe.exec.is_some())
        + usize::from(probe.http_get.is_some())
        + usize::from(probe.tcp_socket.is_some())
        + usize::from(probe.grpc.is_some());
    match handlers {
        1 => None,
        0 => Some(Cause::required(
            path,
            "one of exec, httpGet, tcpSocket, grpc",
        )),
        _ => Some(Cause::forbidden(
            path,
            "more than one of exec, httpGet, tcpSocket, grpc",
        )),
    }
}

fn duplicates<'a>(names: impl Iterator<Item = &'a str>, path: &Path, what: &str) -> Vec<Cause> {
    let mut seen = BTreeSet::new();
    names
        .filter(|name| !seen.insert(*name))
        .map(|name| Cause::duplicate(path, name, format!("another {what} has this name")))
        .collect()
}
