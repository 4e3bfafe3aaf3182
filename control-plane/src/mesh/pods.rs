//! A pod as the mesh sees it: where it is, who it is, whether it takes requests and has a sidecar.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use k8s_openapi::api::core::v1;
use weft_proto::spiffe::{InvalidSpiffeId, SpiffeId};

use super::ObjectName;
use super::services::TargetPort;

/// Labels, by key.
pub type Labels = BTreeMap<String, String>;

/// The name of the sidecar's container.
pub const SIDECAR: &str = "weft-proxy";
/// Written by the launcher: the inode of the sandbox's network namespace.
pub const NETWORK_NAMESPACE: &str = "weft.dev/network-namespace";
/// Set by Deployments on their pods.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: ObjectName,
    /// Its labels.
    pub labels: Labels,
    /// Its identity's last part.
    pub service_account: String,
    /// What it belongs to: the name of its owner, else its own.
    pub workload: String,
    /// Its addresses, the primary one first; none before its sandbox exists.
    pub addresses: Vec<IpAddr>,
    /// The network namespace its processes are in, by which callers are attested.
    pub network_namespace: Option<u64>,
    /// Whether it has a sidecar.
    pub is_meshed: bool,
    /// Its condition `Ready`.
    pub is_ready: bool,
    /// Whether it is on its way out.
    pub is_terminating: bool,
    /// Whether it has ended for good.
    pub is_finished: bool,
    /// TCP ports of its containers that have a name.
    pub named_ports: BTreeMap<String, u16>,
    /// Ports of the host that lead to it.
    pub published: Vec<PublishedPort>,
}

/// A port of the host that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    /// The host's address and port.
    pub host: SocketAddr,
    /// The port of the pod.
    pub target: u16,
}

impl Pod {
    /// Reads a pod; one without a name is none.
    pub fn read(pod: &v1::Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let name = ObjectName::new(metadata.namespace.clone()?, metadata.name.clone()?);
        let spec = pod.spec.as_ref()?;
        let annotations = metadata.annotations.clone().unwrap_or_default();
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        Some(Self {
            labels: metadata.labels.clone().unwrap_or_default(),
            service_account: service_account(spec),
            workload: workload(pod, &name),
            addresses: addresses(pod),
            network_namespace: annotations
                .get(NETWORK_NAMESPACE)
                .and_then(|inode| inode.parse().ok()),
            is_meshed: containers(spec).any(|container| container.name == SIDECAR),
            is_ready: is_ready(pod),
            is_terminating: metadata.deletion_timestamp.is_some(),
            is_finished: matches!(phase, Some("Succeeded" | "Failed")),
            named_ports: named_ports(spec),
            published: published(spec),
            name,
        })
    }

    /// The address that its endpoints have.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }

    /// Whether requests may be sent to it.
    pub fn is_serving(&self, even_unready: bool) -> bool {
        let is_alive = !self.is_terminating && !self.is_finished;
        is_alive && !self.addresses.is_empty() && (self.is_ready || even_unready)
    }

    /// Whether it has all of these labels.
    pub fn has_labels(&self, labels: &Labels) -> bool {
        labels
            .iter()
            .all(|(key, value)| self.labels.get(key) == Some(value))
    }

    /// The number of a port, which may be known by name only.
    pub fn resolve(&self, port: &TargetPort) -> Option<u16> {
        match port {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => self.named_ports.get(name).copied(),
        }
    }

    /// Who it is.
    ///
    /// # Errors
    /// When namespace or service account hold what SPIFFE does not allow.
    pub fn identity(&self, trust_domain: &str) -> Result<SpiffeId, InvalidSpiffeId> {
        SpiffeId::new(trust_domain, &self.name.namespace, &self.service_account)
    }
}

fn containers(spec: &v1::PodSpec) -> impl Iterator<Item = &v1::Container> {
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
}

fn service_account(spec: &v1::PodSpec) -> String {
    spec.service_account_name
        .clone()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "default".to_owned())
}

/// The pod's controller; on Kubernetes that of a Deployment's pod is a ReplicaSet, named after the Deployment
/// and the hash of the template.
fn workload(pod: &v1::Pod, name: &ObjectName) -> String {
    let metadata = &pod.metadata;
    let owner = metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller.unwrap_or(true));
    let hash = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(POD_TEMPLATE_HASH));
    match (owner, hash) {
        (Some(owner), Some(hash)) if owner.kind == "ReplicaSet" => owner
            .name
            .strip_suffix(hash.as_str())
            .and_then(|name| name.strip_suffix('-'))
            .unwrap_or(&owner.name)
            .to_owned(),
        (Some(owner), _) => owner.name.clone(),
        (None, _) => name.name.clone(),
    }
}

fn addresses(pod: &v1::Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in status.pod_ip.as_deref().into_iter().chain(all) {
        if let Ok(address) = text.parse()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

fn is_ready(pod: &v1::Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn tcp_ports(spec: &v1::PodSpec) -> impl Iterator<Item = (u16, &v1::ContainerPort)> {
    containers(spec)
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")))
        .filter_map(|port| Some((u16::try_from(port.container_port).ok()?, port)))
}

fn named_ports(spec: &v1::PodSpec) -> BTreeMap<String, u16> {
    tcp_ports(spec)
        .filter_map(|(number, port)| Some((port.name.clone()?, number)))
        .collect()
}

fn published(spec: &v1::PodSpec) -> Vec<PublishedPort> {
    let mut published: Vec<_> = tcp_ports(spec)
        .filter_map(|(target, port)| {
            let host_port = u16::try_from(port.host_port?)
                .ok()
                .filter(|port| *port != 0)?;
            let address = match port.host_ip.as_deref() {
                None | Some("") => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Some(text) => text.parse().ok()?,
            };
            Some(PublishedPort {
                host: SocketAddr::new(address, host_port),
                target,
            })
        })
        .collect();
    published.sort_unstable();
    published.dedup_by_key(|port| port.host);
    published
}
