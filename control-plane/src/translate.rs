//! From the mesh to xDS: every resource of every sidecar, as a pure function.
//!
//! What is the same for all sidecars is made once per revision: clusters, endpoints, and the route tables of
//! those who follow no routes of their own. A sidecar adds what concerns its own pod. A map in which nothing
//! changed is the very map of the revision before, so that whoever compares revisions compares pointers.
//!
//! The table "xDS as weft uses it" in `docs/architecture.md` lists the resources. Policies on a service act in its
//! callers' sidecars: routes by the service that was addressed, everything else by the cluster that was chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Name;

use crate::mesh::pods::Pod;
use crate::mesh::services::{Outbound, Port, Service};
use crate::mesh::{Mesh, ObjectName};

mod clusters;
mod endpoints;
mod http;
mod listeners;
pub mod resource;
mod routes;
mod telemetry;
mod tls;
mod wire;

use resource::{Resource, ResourceKind, ResourceMap, insert, reuse};
use telemetry::Receivers;

/// The mesh at one revision with everything that sidecars share.
#[derive(Debug)]
pub struct Snapshot {
    /// What it was made from.
    pub mesh: Arc<Mesh>,
    clusters: Arc<ResourceMap>,
    endpoints: Arc<ResourceMap>,
    routes: Arc<ResourceMap>,
    /// Of the namespaces whose clients follow routes of their own.
    routes_of_namespace: BTreeMap<String, Arc<ResourceMap>>,
    /// By the workload that spans are told of; one map for all, without a name, where nothing is traced.
    listeners: BTreeMap<String, Arc<ResourceMap>>,
    receivers: Receivers,
}

/// All resources of one sidecar: for each type the maps that together hold them, no name in two of them.
#[derive(Debug, Clone)]
pub struct ProxyResources {
    /// The revision they are of.
    pub revision: u64,
    maps: BTreeMap<ResourceKind, Vec<Arc<ResourceMap>>>,
}

impl ProxyResources {
    /// Puts maps together.
    pub fn new(revision: u64, maps: BTreeMap<ResourceKind, Vec<Arc<ResourceMap>>>) -> Self {
        Self { revision, maps }
    }

    /// The maps that hold the resources of a type.
    pub fn maps(&self, kind: ResourceKind) -> &[Arc<ResourceMap>] {
        self.maps.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// One resource.
    pub fn get(&self, kind: ResourceKind, name: &str) -> Option<&Arc<Resource>> {
        self.maps(kind).iter().find_map(|map| map.get(name))
    }

    /// All resources of a type.
    pub fn all(&self, kind: ResourceKind) -> impl Iterator<Item = &Arc<Resource>> {
        self.maps(kind).iter().flat_map(|map| map.values())
    }

    /// The same with other secrets.
    pub fn with_secrets(&self, secrets: Arc<ResourceMap>) -> Self {
        let mut resources = self.clone();
        resources.maps.insert(ResourceKind::Secret, vec![secrets]);
        resources
    }
}

impl Snapshot {
    /// Translates what sidecars share; what did not change since `previous` is taken from it.
    pub fn compile(mesh: Arc<Mesh>, previous: Option<&Snapshot>) -> Self {
        let receivers = Receivers::of(&mesh);
        let clusters = shared_clusters(&mesh, &receivers);
        let endpoints = of_ports(&mesh, |service, port| {
            endpoints::assignment(&mesh, service, port)
        });
        let producers = route_tables(&mesh, "");
        let routes_of_namespace = mesh
            .policies
            .consumer_namespaces()
            .map(|namespace| {
                let old = previous.and_then(|old| old.routes_of_namespace.get(namespace));
                (
                    namespace.to_owned(),
                    reuse(route_tables(&mesh, namespace), old),
                )
            })
            .collect();
        let listeners = workloads(&mesh, &receivers)
            .into_iter()
            .map(|workload| {
                let old = previous.and_then(|old| old.listeners.get(&workload));
                let map = reuse(shared_listeners(&mesh, &receivers, &workload), old);
                (workload, map)
            })
            .collect();
        Self {
            clusters: reuse(clusters, previous.map(|old| &old.clusters)),
            endpoints: reuse(endpoints, previous.map(|old| &old.endpoints)),
            routes: reuse(producers, previous.map(|old| &old.routes)),
            routes_of_namespace,
            listeners,
            receivers,
            mesh,
        }
    }

    /// All resources of the sidecar of a pod; none for a pod that is not in the mesh (any more).
    pub fn resources(
        &self,
        pod: &ObjectName,
        previous: Option<&ProxyResources>,
    ) -> Option<ProxyResources> {
        let pod = self.mesh.pod(pod)?;
        let own_clusters = own_clusters(pod);
        let own_listeners = self.own_listeners(pod);
        // Own maps come first: see below.
        let old = |kind| previous.and_then(|previous| previous.maps(kind).first());
        let workload = match self.receivers.is_empty() {
            true => "",
            false => pod.workload.as_str(),
        };
        let listeners = self.listeners.get(workload).cloned().unwrap_or_default();
        let maps = BTreeMap::from([
            (
                ResourceKind::Cluster,
                vec![
                    reuse(own_clusters, old(ResourceKind::Cluster)),
                    Arc::clone(&self.clusters),
                ],
            ),
            (ResourceKind::Endpoints, vec![Arc::clone(&self.endpoints)]),
            (
                ResourceKind::Listener,
                vec![reuse(own_listeners, old(ResourceKind::Listener)), listeners],
            ),
            (
                ResourceKind::Route,
                vec![self.routes_for(&pod.name.namespace)],
            ),
        ]);
        Some(ProxyResources::new(self.mesh.revision, maps))
    }

    /// Whether every sidecar has the same resources by both. Everything else that a sidecar's resources are made
    /// of makes a revision when it changes.
    pub fn is_same(&self, other: &Snapshot) -> bool {
        let is_shared_same = Arc::ptr_eq(&self.clusters, &other.clusters)
            && Arc::ptr_eq(&self.endpoints, &other.endpoints)
            && Arc::ptr_eq(&self.routes, &other.routes);
        let is_pods_same = self.mesh.pods == other.mesh.pods;
        is_shared_same && is_pods_same && self.mesh.revision == other.mesh.revision
    }

    fn routes_for(&self, namespace: &str) -> Arc<ResourceMap> {
        let own = self.routes_of_namespace.get(namespace);
        Arc::clone(own.unwrap_or(&self.routes))
    }

    fn own_listeners(&self, pod: &Pod) -> ResourceMap {
        let policies = &self.mesh.policies;
        let of_services = self
            .mesh
            .services_of(pod)
            .flat_map(|service| policies.telemetry(&service.name));
        let of_namespace = policies.namespace_wide_telemetry(&pod.name.namespace);
        let reporting = self
            .receivers
            .report(of_services.chain(of_namespace), &pod.workload);

        let mut listeners = ResourceMap::new();
        let inbound = listeners::inbound(policies.mutual_tls(pod), &reporting);
        insert(&mut listeners, Resource::encode(&inbound.name, &inbound));
        for port in self.mesh.accepting_ports(pod) {
            let published = listeners::published(port, &reporting);
            insert(
                &mut listeners,
                Resource::encode(&published.name, &published),
            );
        }
        listeners
    }
}

fn own_clusters(pod: &Pod) -> ResourceMap {
    let mut clusters = ResourceMap::new();
    if let Some(address) = pod.address() {
        for port in &pod.published {
            let cluster = clusters::inbound_port(address, port.target);
            insert(&mut clusters, Resource::encode(&cluster.name, &cluster));
        }
    }
    clusters
}

fn shared_clusters(mesh: &Mesh, receivers: &Receivers) -> ResourceMap {
    let mut resources = of_ports(mesh, |service, port| {
        clusters::of_service(mesh, service, port)
    });
    let fixed = [clusters::passthrough(), clusters::inbound()];
    for cluster in fixed.into_iter().chain(receivers.clusters()) {
        insert(&mut resources, Resource::encode(&cluster.name, &cluster));
    }
    resources
}

fn route_tables(mesh: &Mesh, namespace: &str) -> ResourceMap {
    of_ports(mesh, |service, port| {
        routes::table(mesh, service, port, namespace)
    })
}

/// Spans carry the name of the workload whose sidecar makes them, so where there are spans each workload has
/// listeners of its own.
fn workloads(mesh: &Mesh, receivers: &Receivers) -> BTreeSet<String> {
    match receivers.is_empty() {
        true => BTreeSet::from([String::new()]),
        false => mesh
            .pods
            .iter()
            .filter(|pod| pod.is_meshed)
            .map(|pod| pod.workload.clone())
            .collect(),
    }
}

fn shared_listeners(mesh: &Mesh, receivers: &Receivers, workload: &str) -> ResourceMap {
    let mut resources = ResourceMap::new();
    let outbound = listeners::outbound(&receivers.report(std::iter::empty(), workload));
    insert(&mut resources, Resource::encode(&outbound.name, &outbound));
    for service in &mesh.services {
        let reporting = receivers.report(mesh.policies.telemetry(&service.name), workload);
        let listeners = service
            .ports
            .iter()
            .filter_map(|port| listeners::of_service(service, port, &reporting));
        for listener in listeners {
            insert(&mut resources, Resource::encode(&listener.name, &listener));
        }
    }
    resources
}

/// One resource for each port of each service, named after both.
fn of_ports<T: Name>(mesh: &Mesh, make: impl Fn(&Service, &Port) -> T) -> ResourceMap {
    let mut resources = ResourceMap::new();
    for service in &mesh.services {
        for port in &service.ports {
            let name = Outbound {
                service: &service.name,
                port: port.number,
            };
            insert(
                &mut resources,
                Resource::encode(&name.to_string(), &make(service, port)),
            );
        }
    }
    resources
}

#[cfg(test)]
mod tests;
