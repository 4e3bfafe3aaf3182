//! EndpointSlices, computed from Services and the pods they select, in the transaction that changes either.
//!
//! One slice for each address family; one more where pods give the same port name to different numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds::{ENDPOINT_SLICE, POD, SERVICE};
use crate::store::{Name, Object, Snapshot, Transaction};

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Brings the slices of all Services that the transaction touches up to date.
pub(super) fn settle(transaction: &mut Transaction) {
    for service in touched(transaction) {
        let desired = slices(transaction.state(), &service);
        let names: BTreeSet<Name> = desired.iter().map(|(name, _)| name.clone()).collect();
        let stale: Vec<Name> = transaction
            .state()
            .list(&ENDPOINT_SLICE, Some(&service.name().namespace))
            .filter(|slice| slice.label(SERVICE_NAME) == Some(&service.name().name))
            .map(|slice| slice.name().clone())
            .filter(|name| !names.contains(name))
            .collect();
        for name in stale {
            transaction.remove(&ENDPOINT_SLICE, &name);
        }
        for (_, slice) in desired {
            transaction.put(&ENDPOINT_SLICE, slice);
        }
    }
}

/// Services that changed, and those that select a pod that changed, before or after.
fn touched(transaction: &Transaction) -> Vec<Arc<Object>> {
    let state = transaction.state();
    let mut names = BTreeSet::new();
    for change in transaction.changes() {
        let object = change.object();
        if *object.kind() == SERVICE {
            names.insert(object.name().clone());
        } else if *object.kind() == POD {
            let selecting = state
                .list(&SERVICE, Some(&object.name().namespace))
                .filter(|service| {
                    let selector = &service.value()["spec"]["selector"];
                    object.has_labels(selector)
                        || change
                            .before()
                            .is_some_and(|before| before.has_labels(selector))
                })
                .map(|service| service.name().clone());
            names.extend(selecting);
        }
    }
    names
        .iter()
        .filter_map(|name| state.find(&SERVICE, name).map(Arc::clone))
        .collect()
}

/// Pods of one family whose ports have the same numbers.
type Groups = BTreeMap<(&'static str, Vec<Option<u16>>), Vec<Value>>;

fn slices(state: &Snapshot, service: &Object) -> Vec<(Name, Value)> {
    let spec = &service.value()["spec"];
    let ports: Vec<&Value> = spec["ports"].as_array().into_iter().flatten().collect();
    let mut groups = Groups::new();
    let pods = state
        .list(&POD, Some(&service.name().namespace))
        .filter(|pod| pod.has_labels(&spec["selector"]) && !is_over(pod));
    for pod in pods {
        let numbers: Vec<Option<u16>> = ports.iter().map(|port| target(port, pod)).collect();
        for address in addresses(pod) {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = groups.entry((family, numbers.clone())).or_default();
            group.push(endpoint(pod, address));
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    groups
        .into_iter()
        .map(|((family, numbers), endpoints)| {
            let count = counts.entry(family).or_default();
            *count += 1;
            let suffix = if *count == 1 {
                String::new()
            } else {
                format!("-{count}")
            };
            let name = format!("{}-{}{suffix}", service.name().name, family.to_lowercase());
            let slice = slice(
                service,
                &name,
                family,
                &slice_ports(&ports, &numbers),
                endpoints,
            );
            (Name::new(&service.name().namespace, name), slice)
        })
        .collect()
}

fn slice(
    service: &Object,
    name: &str,
    family: &str,
    ports: &[Value],
    endpoints: Vec<Value>,
) -> Value {
    json!({
        "apiVersion": ENDPOINT_SLICE.api_version(),
        "kind": ENDPOINT_SLICE.name,
        "metadata": {
            "name": name,
            "namespace": service.name().namespace,
            "labels": {
                SERVICE_NAME: service.name().name,
                "endpointslice.kubernetes.io/managed-by": "weft",
            },
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": service.name().name,
                "uid": service.uid(),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    })
}

fn slice_ports(ports: &[&Value], numbers: &[Option<u16>]) -> Vec<Value> {
    ports
        .iter()
        .zip(numbers)
        .filter_map(|(port, number)| {
            let mut slice_port = json!({
                "name": port["name"].as_str().unwrap_or_default(),
                "port": (*number)?,
                "protocol": port["protocol"].as_str().unwrap_or("TCP"),
            });
            if let Some(protocol) = port["appProtocol"].as_str() {
                slice_port["appProtocol"] = json!(protocol);
            }
            Some(slice_port)
        })
        .collect()
}

/// The number that a Service's port has in a pod; `None` where it names one that the pod does not have.
fn target(port: &Value, pod: &Object) -> Option<u16> {
    let target = port.get("targetPort").unwrap_or(&port["port"]);
    if let Some(number) = target.as_u64() {
        return u16::try_from(number).ok();
    }
    let name = target.as_str()?;
    let spec = &pod.value()["spec"];
    // Sidecars are init containers, and may name ports too.
    ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten())
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .find(|port| port["name"] == name)
        .and_then(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
}

fn endpoint(pod: &Object, address: IpAddr) -> Value {
    let is_serving = is_ready(pod);
    let is_terminating = pod.is_deleting();
    json!({
        "addresses": [address.to_string()],
        "conditions": {
            "ready": is_serving && !is_terminating,
            "serving": is_serving,
            "terminating": is_terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.name().namespace,
            "name": pod.name().name,
            "uid": pod.uid(),
        },
    })
}

fn is_ready(pod: &Object) -> bool {
    let conditions = pod.value()["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn is_over(pod: &Object) -> bool {
    matches!(
        pod.value()["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

fn addresses(pod: &Object) -> Vec<IpAddr> {
    let status = &pod.value()["status"];
    let listed = status["podIPs"].as_array().into_iter().flatten();
    let mut addresses: Vec<IpAddr> = listed
        .filter_map(|entry| entry["ip"].as_str()?.parse().ok())
        .collect();
    if addresses.is_empty() {
        addresses.extend(
            status["podIP"]
                .as_str()
                .and_then(|ip| ip.parse::<IpAddr>().ok()),
        );
    }
    addresses
}
