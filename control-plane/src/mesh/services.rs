//! A service as the mesh sees it: its addresses, its ports and what they speak, the pods behind it.

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ObjectName;
use super::pods::Labels;

/// On a Service: pins the protocol of all its ports.
const PROTOCOL: &str = "weft.dev/protocol";

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// Its virtual addresses; none for a headless service.
    pub addresses: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<Port>,
    /// The pods it selects, as sorted indices into those of the mesh.
    pub members: Vec<usize>,
    /// Whether pods that are not ready get requests too.
    pub publishes_unready: bool,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The number that clients use.
    pub number: u16,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// The port of the pods.
    pub target: TargetPort,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// A port of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name its container gives it.
    Name(String),
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Nobody said: each connection is looked at.
    Detected,
    /// HTTP of any version, gRPC among it.
    Http,
    /// Opaque bytes.
    Tcp,
}

impl Protocol {
    /// The protocol that a word of `appProtocol`, of the annotation, or of a port's name stands for.
    fn from_word(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "http" | "http2" | "h2c" | "grpc" | "grpc-web" | "kubernetes.io/h2c"
            | "kubernetes.io/ws" => Some(Self::Http),
            "tcp" | "tls" | "https" | "kubernetes.io/wss" | "redis" | "mysql" | "mongo"
            | "postgres" | "postgresql" | "amqp" | "kafka" => Some(Self::Tcp),
            _ => None,
        }
    }
}

impl Service {
    /// Reads a service; `select` finds the pods of a selector in a namespace. None for what has no pods by
    /// design (`ExternalName`).
    pub fn read(
        service: &v1::Service,
        select: impl Fn(&Labels, &str) -> Vec<usize>,
    ) -> Option<Self> {
        let metadata = &service.metadata;
        let name = ObjectName::new(metadata.namespace.clone()?, metadata.name.clone()?);
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let pinned = metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(PROTOCOL))
            .and_then(|word| Protocol::from_word(word));
        Some(Self {
            addresses: addresses(spec),
            ports: ports(spec, pinned),
            members: select(
                spec.selector.as_ref().unwrap_or(&Labels::new()),
                &name.namespace,
            ),
            publishes_unready: spec.publish_not_ready_addresses.unwrap_or(false),
            name,
        })
    }

    /// The port of that number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Whether it has virtual addresses.
    pub fn is_headless(&self) -> bool {
        self.addresses.is_empty()
    }
}

/// The name that listener, route table, cluster and endpoints of one port have:
/// `outbound|<port>||<name>.<namespace>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outbound<'a> {
    /// The service.
    pub service: &'a ObjectName,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Outbound<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectName { namespace, name } = self.service;
        write!(formatter, "outbound|{}||{name}.{namespace}", self.port)
    }
}

fn addresses(spec: &v1::ServiceSpec) -> Vec<IpAddr> {
    let all = spec.cluster_ips.iter().flatten();
    let mut addresses = Vec::new();
    for text in spec.cluster_ip.iter().chain(all) {
        if let Ok(address) = text.parse()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

fn ports(spec: &v1::ServiceSpec, pinned: Option<Protocol>) -> Vec<Port> {
    let mut ports: Vec<_> = spec
        .ports
        .iter()
        .flatten()
        .filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")))
        .filter_map(|port| {
            Some(Port {
                number: u16::try_from(port.port).ok()?,
                name: port.name.clone(),
                target: target(port)?,
                protocol: protocol(port, pinned),
            })
        })
        .collect();
    ports.sort_by_key(|port: &Port| port.number);
    ports.dedup_by_key(|port| port.number);
    ports
}

fn target(port: &v1::ServicePort) -> Option<TargetPort> {
    match &port.target_port {
        None => Some(TargetPort::Number(u16::try_from(port.port).ok()?)),
        Some(IntOrString::Int(number)) => Some(TargetPort::Number(u16::try_from(*number).ok()?)),
        Some(IntOrString::String(name)) => Some(TargetPort::Name(name.clone())),
    }
}

/// The port's own word goes before the service's, and that before the port's name (`<protocol>[-<anything>]`,
/// as Istio reads names).
fn protocol(port: &v1::ServicePort, pinned: Option<Protocol>) -> Protocol {
    let by_word = port.app_protocol.as_deref().and_then(Protocol::from_word);
    let by_name = || {
        let name = port.name.as_deref()?;
        Protocol::from_word(name.split('-').next().unwrap_or(name))
    };
    by_word
        .or(pinned)
        .or_else(by_name)
        .unwrap_or(Protocol::Detected)
}
