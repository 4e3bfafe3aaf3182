//! What is wrong with Deployments, Jobs and Pods, alone and beside each other: a published port is there once.

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::json;

use super::path::Path;
use super::pods;
use crate::kinds::{DEPLOYMENT, JOB, POD};
use crate::refusal::Cause;
use crate::store::{Object, Snapshot};

/// All that is wrong with it.
pub(super) fn causes(state: &Snapshot, object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    if *object.kind() == DEPLOYMENT
        && let Some(deployment) = object.typed::<Deployment>()
        && let Some(spec) = &deployment.spec
    {
        causes.extend(deployment_causes(spec));
    }
    let Some((spec, path)) = pod_spec(object) else {
        causes.push(Cause::required("spec", ""));
        return causes;
    };
    causes.extend(pods::causes(&spec, &path));
    if is_publisher(object) {
        causes.extend(published_twice(state, object, &spec, &path));
    }
    causes
}

/// The pod that a workload makes, and where it is written.
fn pod_spec(object: &Object) -> Option<(PodSpec, Path)> {
    let template = Path::root("spec").field("template").field("spec");
    if *object.kind() == POD {
        let pod = object.typed::<Pod>()?;
        Some((pod.spec.clone()?, Path::root("spec")))
    } else if *object.kind() == DEPLOYMENT {
        let deployment = object.typed::<Deployment>()?;
        Some((deployment.spec.as_ref()?.template.spec.clone()?, template))
    } else {
        let job = object.typed::<Job>()?;
        Some((job.spec.as_ref()?.template.spec.clone()?, template))
    }
}

/// Pods of a workload publish what it says; only it is looked at.
fn is_publisher(object: &Object) -> bool {
    *object.kind() != POD || object.owners().next().is_none()
}

fn deployment_causes(spec: &DeploymentSpec) -> Vec<Cause> {
    let path = Path::root("spec");
    let mut causes = Vec::new();
    if let Some(replicas) = spec.replicas.filter(|replicas| *replicas < 0) {
        let path = path.field("replicas");
        causes.push(Cause::invalid(
            path,
            &json!(replicas),
            "must be greater than or equal to 0",
        ));
    }
    let selector = spec.selector.match_labels.clone().unwrap_or_default();
    let expressions = spec
        .selector
        .match_expressions
        .as_deref()
        .unwrap_or_default();
    if !expressions.is_empty() {
        causes.push(Cause::forbidden(
            path.field("selector").field("matchExpressions"),
            "select by matchLabels",
        ));
    }
    if selector.is_empty() {
        let path = path.field("selector").field("matchLabels");
        causes.push(Cause::required(
            path,
            "an empty selector would select every pod",
        ));
    }
    let metadata = spec.template.metadata.as_ref();
    let labels = metadata
        .and_then(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    let is_matched = selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    if !is_matched {
        let path = path.field("template").field("metadata").field("labels");
        causes.push(Cause::invalid(
            path,
            &json!(labels),
            "`selector` does not match template `labels`",
        ));
    }
    let policy = spec
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref());
    if let Some(policy) = policy.filter(|policy| *policy != "Always") {
        let path = path.field("template").field("spec").field("restartPolicy");
        causes.push(Cause::not_supported(path, &json!(policy), &["Always"]));
    }
    causes
}

fn published_twice(state: &Snapshot, object: &Object, spec: &PodSpec, path: &Path) -> Vec<Cause> {
    let own = published(spec, path);
    if own.is_empty() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    for (index, (address, port, path)) in own.iter().enumerate() {
        if own[..index]
            .iter()
            .any(|(other, number, _)| number == port && overlap(*other, *address))
        {
            causes.push(Cause::duplicate(
                path,
                &port.to_string(),
                "published before in this pod",
            ));
        }
    }
    for kind in [&DEPLOYMENT, &JOB, &POD] {
        for other in state.list(kind, None).filter(|other| is_publisher(other)) {
            let is_itself = (other.kind(), other.name()) == (object.kind(), object.name());
            if is_itself || other.is_deleting() {
                continue;
            }
            let Some((other_spec, _)) = pod_spec(other) else {
                continue;
            };
            let theirs = published(&other_spec, &Path::empty());
            for (address, port, path) in &own {
                if theirs
                    .iter()
                    .any(|(their, number, _)| number == port && overlap(*their, *address))
                {
                    causes.push(Cause::duplicate(
                        path,
                        &port.to_string(),
                        format!("published by {kind} {} already", other.name()),
                    ));
                }
            }
        }
    }
    causes
}

fn published(spec: &PodSpec, path: &Path) -> Vec<(IpAddr, i32, Path)> {
    let containers = |list: &str, containers: &[Container]| -> Vec<(IpAddr, i32, Path)> {
        let list = path.field(list);
        let mut found = Vec::new();
        for (index, container) in containers.iter().enumerate() {
            let ports = list.index(index).field("ports");
            for (index, port) in container.ports.iter().flatten().enumerate() {
                let address = port
                    .host_ip
                    .as_deref()
                    .and_then(|address| address.parse().ok());
                let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                if let Some(port) = port.host_port.filter(|port| *port != 0) {
                    found.push((address, port, ports.index(index).field("hostPort")));
                }
            }
        }
        found
    };
    let mut found = containers(
        "initContainers",
        spec.init_containers.as_deref().unwrap_or_default(),
    );
    found.extend(containers("containers", &spec.containers));
    found
}

/// Whether two listening sockets get in each other's way.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other
        || (one.is_unspecified() && one.is_ipv4() == other.is_ipv4())
        || (other.is_unspecified() && one.is_ipv4() == other.is_ipv4())
        // `[::]` listens on IPv4 too unless it is told not to (ipv6(7), IPV6_V6ONLY).
        || (one.is_unspecified() && one.is_ipv6())
        || (other.is_unspecified() && other.is_ipv6())
}
