//! The mesh as one value: what translation works on.
//!
//! Built from the objects of the store at one moment and never changed afterwards. Everything that needs the
//! whole of the mesh is looked up here once — which pods a service selects, which routes are attached to it,
//! what a policy applies to — so that translation is a pure function of it.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_proto::names;

pub mod pods;
pub mod policies;
pub mod services;
pub mod source;

use pods::{Labels, Pod, PublishedPort};
use policies::Policies;
use services::{Port, Service};
use source::Objects;

/// The name of an object within its kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl ObjectName {
    /// Puts the two parts together.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// When what goes from one sidecar to another shares a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Every request in flight and every opaque connection has one of its own.
    Never,
    /// Requests of HTTP/1.1 share one while there are many.
    #[default]
    WhenBusy,
    /// Requests of HTTP/1.1 do, and so do opaque connections.
    Always,
}

/// What holds for the whole mesh and comes from the daemon instead of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The trust domain of all identities.
    pub trust_domain: String,
    /// Where telemetry goes when no `Telemetry` says otherwise: `http://host:port`, OTLP over gRPC.
    pub otlp_endpoint: Option<String>,
    /// When what goes from one sidecar to another shares a connection.
    pub sharing: Sharing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: names::TRUST_DOMAIN.to_owned(),
            otlp_endpoint: None,
            sharing: Sharing::default(),
        }
    }
}

/// The mesh at one moment.
#[derive(Debug)]
pub struct Mesh {
    /// The newest revision in it. Pods come, go and get ready without a new one.
    pub revision: u64,
    /// What holds for all of it.
    pub settings: Settings,
    /// Services, by name.
    pub services: Vec<Service>,
    /// Pods, by name.
    pub pods: Vec<Arc<Pod>>,
    /// Routes and policies, by what they apply to.
    pub policies: Policies,
    pods_by_name: HashMap<ObjectName, usize>,
    pods_by_network_namespace: HashMap<u64, Vec<usize>>,
    services_by_name: HashMap<ObjectName, usize>,
}

impl Mesh {
    /// Reads the objects. What cannot be part of a mesh (a pod without an address, a port that is not TCP) is
    /// left out of it; the API has told its author.
    pub fn build(objects: &Objects, settings: Settings) -> Self {
        let mut pods: Vec<_> = objects
            .pods
            .iter()
            .filter_map(|pod| Pod::read(pod))
            .map(Arc::new)
            .collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        let selectors = SelectorIndex::of(&pods);
        let mut services: Vec<_> = objects
            .services
            .iter()
            .filter_map(|service| {
                Service::read(service, |selector, namespace| {
                    selectors.select(&pods, namespace, selector)
                })
            })
            .collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));

        Self {
            revision: objects.revision,
            settings,
            pods_by_name: index(pods.iter().map(|pod| &pod.name)),
            pods_by_network_namespace: by_network_namespace(&pods),
            services_by_name: index(services.iter().map(|service| &service.name)),
            services,
            pods,
            policies: Policies::read(objects),
        }
    }

    /// The pod of that name.
    pub fn pod(&self, name: &ObjectName) -> Option<&Arc<Pod>> {
        Some(&self.pods[*self.pods_by_name.get(name)?])
    }

    /// The service of that name.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        Some(&self.services[*self.services_by_name.get(name)?])
    }

    /// The pods that say they live in a network namespace; more than one only where an old pod's object
    /// outlives its namespace.
    pub fn pods_in_network_namespace(&self, inode: u64) -> impl Iterator<Item = &Arc<Pod>> {
        let pods = self.pods_by_network_namespace.get(&inode);
        pods.into_iter().flatten().map(|at| &self.pods[*at])
    }

    /// The pods that a service selects, ready or not.
    pub fn members<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Arc<Pod>> {
        service.members.iter().map(|at| &self.pods[*at])
    }

    /// The services that select a pod, by name.
    pub fn services_of(&self, pod: &Pod) -> impl Iterator<Item = &Service> {
        let at = self.pods_by_name.get(&pod.name).copied();
        self.services
            .iter()
            .filter(move |service| at.is_some_and(|at| service.members.binary_search(&at).is_ok()))
    }

    /// The ports of the host that a pod's sidecar accepts on. Sidecars of pods that publish the same port share
    /// one listening socket, so each connection goes to whichever accepts first: a pod on its way out accepts
    /// nothing more, and one that is not ready leaves it to those that are. Where none is ready all accept, so
    /// that clients hear why.
    pub fn accepting_ports<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = PublishedPort> + 'a {
        let is_leaving = pod.is_terminating || pod.is_finished;
        let ports = pod.published.iter().copied().filter(move |_| !is_leaving);
        ports.filter(|port| pod.is_ready || !self.has_ready_publisher(port.host))
    }

    fn has_ready_publisher(&self, host: SocketAddr) -> bool {
        let is_at = |port: &PublishedPort| port.host == host;
        self.pods
            .iter()
            .any(|pod| pod.is_meshed && pod.is_serving(false) && pod.published.iter().any(is_at))
    }

    /// The pods that take requests for one port of a service, each with the port it listens on.
    pub fn endpoints<'a>(
        &'a self,
        service: &'a Service,
        port: &'a Port,
    ) -> impl Iterator<Item = (&'a Arc<Pod>, u16)> {
        self.members(service)
            .filter(|pod| pod.is_serving(service.publishes_unready))
            .filter_map(|pod| Some((pod, pod.resolve(&port.target)?)))
    }
}

fn index<'a>(names: impl Iterator<Item = &'a ObjectName>) -> HashMap<ObjectName, usize> {
    names
        .enumerate()
        .map(|(at, name)| (name.clone(), at))
        .collect()
}

fn by_network_namespace(pods: &[Arc<Pod>]) -> HashMap<u64, Vec<usize>> {
    let mut index: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, pod) in pods.iter().enumerate() {
        if let Some(inode) = pod.network_namespace {
            index.entry(inode).or_default().push(at);
        }
    }
    index
}

/// Finds pods by label without asking every pod for every service.
struct SelectorIndex<'a> {
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<usize>>,
}

impl<'a> SelectorIndex<'a> {
    fn of(pods: &'a [Arc<Pod>]) -> Self {
        let mut by_label: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, pod) in pods.iter().enumerate() {
            for (key, value) in &pod.labels {
                by_label
                    .entry((pod.name.namespace.as_str(), key.as_str(), value.as_str()))
                    .or_default()
                    .push(at);
            }
        }
        Self { by_label }
    }

    /// The pods with all labels of a selector, in order; an empty selector selects none (Kubernetes' rule
    /// for services).
    fn select(&self, pods: &[Arc<Pod>], namespace: &str, selector: &Labels) -> Vec<usize> {
        let candidates = selector
            .iter()
            .map(|(key, value)| {
                self.by_label
                    .get(&(namespace, key.as_str(), value.as_str()))
                    .map_or(&[][..], Vec::as_slice)
            })
            .min_by_key(|candidates| candidates.len());
        candidates
            .unwrap_or_default()
            .iter()
            .copied()
            .filter(|at| pods[*at].has_labels(selector))
            .collect()
    }
}
