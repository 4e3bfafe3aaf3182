//! What is wrong with a `Service`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::names::is_label;
use super::path::Path;
use super::pods::check_port;
use crate::refusal::Cause;
use crate::store::Object;
use weft_proto::names::is_service_address;

/// All that is wrong with it.
pub(super) fn causes(object: &Object) -> Vec<Cause> {
    let Some(service) = object.typed::<Service>() else {
        return Vec::new();
    };
    let path = Path::root("spec");
    let Some(spec) = &service.spec else {
        return vec![Cause::required(path, "")];
    };
    let mut causes = type_causes(spec, &path);
    causes.extend(port_causes(spec, &path.field("ports")));
    causes.extend(address_causes(spec, &path));
    causes
}

fn type_causes(spec: &ServiceSpec, path: &Path) -> Vec<Cause> {
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    // NodePort and LoadBalancer are served inside the mesh like any other; what is published is a pod's hostPort.
    const SUPPORTED: [&str; 3] = ["ClusterIP", "NodePort", "LoadBalancer"];
    if SUPPORTED.contains(&kind) {
        return Vec::new();
    }
    vec![Cause::not_supported(
        path.field("type"),
        &json!(kind),
        &SUPPORTED,
    )]
}

fn port_causes(spec: &ServiceSpec, path: &Path) -> Vec<Cause> {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    if ports.is_empty() && !is_headless {
        return vec![Cause::required(path, "a Service has at least one port")];
    }
    let mut causes = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        causes.extend(check_port(port.port, &path.field("port")));
        causes.extend(name_cause(ports, index, &path.field("name")));
        causes.extend(target_cause(port, &path.field("targetPort")));
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if protocol != "TCP" {
            let path = path.field("protocol");
            causes.push(Cause::not_supported(path, &json!(protocol), &["TCP"]));
        }
        if ports[..index].iter().any(|other| other.port == port.port) {
            causes.push(Cause::duplicate(
                path.field("port"),
                &port.port.to_string(),
                "another port of the Service has this number",
            ));
        }
    }
    causes
}

fn name_cause(ports: &[ServicePort], index: usize, path: &Path) -> Option<Cause> {
    let Some(name) = ports[index].name.as_deref() else {
        return (ports.len() > 1)
            .then(|| Cause::required(path, "ports need names where there are several"));
    };
    if !is_label(name) {
        let why = "must be lower-case letters, digits and dashes, at most 63";
        return Some(Cause::invalid(path, &json!(name), why));
    }
    ports[..index]
        .iter()
        .any(|other| other.name.as_deref() == Some(name))
        .then(|| Cause::duplicate(path, name, "another port of the Service has this name"))
}

fn target_cause(port: &ServicePort, path: &Path) -> Option<Cause> {
    match port.target_port.as_ref()? {
        IntOrString::Int(number) => check_port(*number, path),
        IntOrString::String(name) => (!is_label(name)).then(|| {
            Cause::invalid(
                path,
                &json!(name),
                "must be a number or the name of a container's port",
            )
        }),
    }
}

fn address_causes(spec: &ServiceSpec, path: &Path) -> Vec<Cause> {
    let path = path.field("clusterIPs");
    spec.cluster_ips
        .iter()
        .flatten()
        .enumerate()
        .filter(|(_, address)| *address != "None")
        .filter(|(_, address)| !address.parse::<IpAddr>().is_ok_and(is_service_address))
        .map(|(index, address)| {
            Cause::invalid(
                path.index(index),
                &json!(address),
                "must be in 240.240.0.0/16 or fd57:f0f0::/112, or be left out",
            )
        })
        .collect()
}
