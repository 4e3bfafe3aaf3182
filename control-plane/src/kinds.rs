//! The kinds of resources there are, and what each is called.
//!
//! Everything that depends on the kind of a resource starts here: discovery, paths of the API, schemas, tables,
//! validation. Workloads have the types of `k8s-openapi`; policies have their own, in the modules below.

pub mod backend_traffic_policy;
pub mod duration;
pub mod http_route;
pub mod lists;
pub mod peer_authentication;
pub mod reference;
pub mod schema;
pub mod telemetry;

use std::fmt;

/// A kind of resource. Compared by group and plural.
#[derive(Debug)]
pub struct Kind {
    /// `""` for the core group.
    pub group: &'static str,
    /// The one version it is served in.
    pub version: &'static str,
    /// `Deployment`.
    pub name: &'static str,
    /// `deployments`: what paths say.
    pub plural: &'static str,
    /// `deployment`.
    pub singular: &'static str,
    /// What `kubectl get` takes for short.
    pub short_names: &'static [&'static str],
    /// Groups of kinds that `kubectl get` takes, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub is_namespaced: bool,
    /// Who writes it.
    pub role: Role,
    /// What hangs below its objects in the API.
    pub subresources: &'static [Subresource],
}

/// Who writes a kind, and what follows from a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Written by people: what should run.
    Workload,
    /// Written by people: how traffic behaves. Unknown fields are always errors.
    Policy,
    /// Written by weft's own parts; no revision is made of it.
    Record,
    /// Computed from other kinds; read-only for everyone.
    Derived,
}

/// What hangs below an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    /// What became of it.
    Status,
    /// How many there should be.
    Scale,
    /// Lines that a container wrote.
    Log,
    /// A command in a container.
    Exec,
    /// HTTP into a pod.
    Proxy,
}

impl Kind {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods` for the core group: unique, and how the store names it.
    pub fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Whether the API lets anyone write it.
    pub fn is_writable(&self) -> bool {
        self.role != Role::Derived
    }

    /// Whether a change of its objects makes a revision of the mesh.
    pub fn is_revisioned(&self) -> bool {
        matches!(self.role, Role::Workload | Role::Policy)
    }

    /// Whether objects have that subresource.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.plural) == (other.group, other.plural)
    }
}

impl Eq for Kind {}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.group, self.plural).cmp(&(other.group, other.plural))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

macro_rules! kind {
    ($(#[$doc:meta])* $constant:ident: $group:literal / $version:literal $name:literal, $plural:literal, $singular:literal, $short:expr, $categories:expr, $namespaced:literal, $role:ident, $subresources:expr) => {
        $(#[$doc])*
        pub static $constant: Kind = Kind {
            group: $group,
            version: $version,
            name: $name,
            plural: $plural,
            singular: $singular,
            short_names: &$short,
            categories: &$categories,
            is_namespaced: $namespaced,
            role: Role::$role,
            subresources: &$subresources,
        };
    };
}

use Subresource::{Exec, Log, Proxy, Scale, Status};

kind!(/// A room for names.
    NAMESPACE: "" / "v1" "Namespace", "namespaces", "namespace", ["ns"], [], false, Workload, [Status]);
kind!(/// Containers in one sandbox.
    POD: "" / "v1" "Pod", "pods", "pod", ["po"], ["all"], true, Record, [Status, Log, Exec, Proxy]);
kind!(/// A name and a virtual address for pods.
    SERVICE: "" / "v1" "Service", "services", "service", ["svc"], ["all"], true, Workload, [Status]);
kind!(/// Who a workload is.
    SERVICE_ACCOUNT: "" / "v1" "ServiceAccount", "serviceaccounts", "serviceaccount", ["sa"], [], true, Workload, []);
kind!(/// Files and variables of containers.
    CONFIG_MAP: "" / "v1" "ConfigMap", "configmaps", "configmap", ["cm"], [], true, Workload, []);
kind!(/// The same, not for every eye.
    SECRET: "" / "v1" "Secret", "secrets", "secret", [], [], true, Workload, []);
kind!(/// Something that happened.
    EVENT: "" / "v1" "Event", "events", "event", ["ev"], [], true, Record, []);
kind!(/// A number of equal pods.
    DEPLOYMENT: "apps" / "v1" "Deployment", "deployments", "deployment", ["deploy"], ["all"], true, Workload, [Status, Scale]);
kind!(/// Pods that run to their end.
    JOB: "batch" / "v1" "Job", "jobs", "job", [], ["all"], true, Workload, [Status]);
kind!(/// The ready pods behind a Service.
    ENDPOINT_SLICE: "discovery.k8s.io" / "v1" "EndpointSlice", "endpointslices", "endpointslice", [], [], true, Derived, []);
kind!(/// Which requests to a Service go where.
    HTTP_ROUTE: "gateway.networking.k8s.io" / "v1" "HTTPRoute", "httproutes", "httproute", [], ["weft", "gateway-api"], true, Policy, [Status]);
kind!(/// How requests to a Service are balanced, limited, retried.
    BACKEND_TRAFFIC_POLICY: "weft.dev" / "v1alpha1" "BackendTrafficPolicy", "backendtrafficpolicies", "backendtrafficpolicy", ["btp"], ["weft"], true, Policy, [Status]);
kind!(/// Whether callers must show a certificate.
    PEER_AUTHENTICATION: "weft.dev" / "v1alpha1" "PeerAuthentication", "peerauthentications", "peerauthentication", ["pa"], ["weft"], true, Policy, [Status]);
kind!(/// What sidecars tell, and whom.
    TELEMETRY: "weft.dev" / "v1alpha1" "Telemetry", "telemetries", "telemetry", [], ["weft"], true, Policy, [Status]);

/// All kinds, in the order discovery tells them.
pub static ALL: [&Kind; 14] = [
    &NAMESPACE,
    &POD,
    &SERVICE,
    &SERVICE_ACCOUNT,
    &CONFIG_MAP,
    &SECRET,
    &EVENT,
    &DEPLOYMENT,
    &JOB,
    &ENDPOINT_SLICE,
    &HTTP_ROUTE,
    &BACKEND_TRAFFIC_POLICY,
    &PEER_AUTHENTICATION,
    &TELEMETRY,
];

/// The kind that a path of the API names.
pub fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    ALL.into_iter()
        .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind that the store calls by this name.
pub fn by_resource(resource: &str) -> Option<&'static Kind> {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    ALL.into_iter()
        .find(|kind| kind.plural == plural && kind.group == group)
}

/// The kind that an object says it is.
pub fn by_name(api_version: &str, name: &str) -> Option<&'static Kind> {
    ALL.into_iter()
        .find(|kind| kind.name == name && kind.api_version() == api_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_each_of_its_names() {
        for kind in ALL {
            assert_eq!(by_plural(kind.group, kind.version, kind.plural), Some(kind));
            assert_eq!(by_resource(&kind.resource()), Some(kind));
            assert_eq!(by_name(&kind.api_version(), kind.name), Some(kind));
        }
    }
}
