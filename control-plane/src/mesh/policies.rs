//! Which routes and policies apply to what.
//!
//! Several policies for one target are merged field by field: the more specific target first (a rule before
//! its route, a port before its service), then the older policy, then by name; Gateway API's order.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kinds::backend_traffic_policy::BackendTrafficPolicySpec;
use crate::kinds::http_route::HttpRouteRule;
use crate::kinds::peer_authentication::{MutualTlsMode, PeerAuthenticationSpec};
use crate::kinds::reference::{Policy, TargetKind, TargetReference};
use crate::kinds::telemetry::TelemetrySpec;

use super::ObjectName;
use super::pods::Pod;
use super::services::{Port, Service};
use super::source::Objects;

/// Routes and policies, by what they apply to.
#[derive(Debug, Default)]
pub struct Policies {
    /// By service, in Gateway API's order of precedence among equals.
    routes: BTreeMap<ObjectName, Vec<AttachedRoute>>,
    traffic: BTreeMap<Target, Vec<Arc<BackendTrafficPolicySpec>>>,
    /// By namespace, those with labels first.
    peer_authentications: BTreeMap<String, Vec<PeerAuthenticationSpec>>,
    telemetry: BTreeMap<Target, Vec<TelemetrySpec>>,
    namespace_telemetry: BTreeMap<String, Vec<TelemetrySpec>>,
}

/// A route as one service sees it.
#[derive(Debug, Clone)]
pub struct AttachedRoute {
    /// Its name.
    pub name: ObjectName,
    /// Only this port of the service; all where none is given.
    pub port: Option<PortReference>,
    /// Its rules.
    pub rules: Arc<Vec<HttpRouteRule>>,
}

/// A port of a service, as a route's parent reference says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortReference {
    /// `port`.
    Number(u16),
    /// `sectionName`.
    Name(String),
}

impl PortReference {
    fn is_for(&self, port: &Port) -> bool {
        match self {
            Self::Number(number) => *number == port.number,
            Self::Name(name) => port.name.as_deref() == Some(name),
        }
    }
}

/// The target of a policy, in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    kind: TargetKind,
    name: ObjectName,
    section: Option<String>,
}

impl Target {
    fn of(namespace: &str, reference: &TargetReference) -> Self {
        Self {
            kind: reference.kind,
            name: ObjectName::new(namespace, &reference.name),
            section: reference.section_name.clone(),
        }
    }
}

impl Policies {
    /// Sorts all policies by what they apply to.
    pub fn read(objects: &Objects) -> Self {
        let mut policies = Self::default();
        policies.read_routes(objects);
        for policy in oldest_first(&objects.traffic_policies) {
            let spec = Arc::new(policy.spec.clone());
            for reference in &policy.spec.target_refs {
                let target = Target::of(policy.namespace(), reference);
                policies
                    .traffic
                    .entry(target)
                    .or_default()
                    .push(Arc::clone(&spec));
            }
        }
        for policy in oldest_first(&objects.peer_authentications) {
            let of_namespace = policies
                .peer_authentications
                .entry(policy.namespace().to_owned())
                .or_default();
            of_namespace.push(policy.spec.clone());
            // Stable: the older one stays first among equals.
            of_namespace.sort_by_key(PeerAuthenticationSpec::is_namespace_wide);
        }
        for policy in oldest_first(&objects.telemetries) {
            policies.read_telemetry(policy.namespace(), &policy.spec);
        }
        policies
    }

    fn read_routes(&mut self, objects: &Objects) {
        for route in oldest_first(&objects.routes) {
            let rules = Arc::new(route.spec.rules.clone());
            for parent in &route.spec.parent_refs {
                let namespace = parent.namespace.as_deref().unwrap_or(route.namespace());
                let by_name = || parent.section_name.clone().map(PortReference::Name);
                self.routes
                    .entry(ObjectName::new(namespace, &parent.name))
                    .or_default()
                    .push(AttachedRoute {
                        name: ObjectName::new(route.namespace(), route.name()),
                        port: parent.port.map(PortReference::Number).or_else(by_name),
                        rules: Arc::clone(&rules),
                    });
            }
        }
    }

    fn read_telemetry(&mut self, namespace: &str, spec: &TelemetrySpec) {
        if spec.target_refs.is_empty() {
            let of_namespace = self.namespace_telemetry.entry(namespace.to_owned());
            of_namespace.or_default().push(spec.clone());
        }
        for reference in &spec.target_refs {
            let target = Target::of(namespace, reference);
            self.telemetry.entry(target).or_default().push(spec.clone());
        }
    }

    /// The routes that clients in `client_namespace` follow for one port of a service. Routes of the clients'
    /// own namespace go before those of the service's (GAMMA: a consumer's route overrides the producer's),
    /// routes of other namespaces are not theirs.
    pub fn routes(
        &self,
        service: &Service,
        port: &Port,
        client_namespace: &str,
    ) -> Vec<&AttachedRoute> {
        let attached = self
            .routes
            .get(&service.name)
            .map_or(&[][..], Vec::as_slice);
        let of = |namespace: &str| -> Vec<&AttachedRoute> {
            attached
                .iter()
                .filter(|route| route.name.namespace == namespace)
                .filter(|route| {
                    route
                        .port
                        .as_ref()
                        .is_none_or(|reference| reference.is_for(port))
                })
                .collect()
        };
        let consumer = of(client_namespace);
        match consumer.is_empty() {
            false => consumer,
            true => of(&service.name.namespace),
        }
    }

    /// The namespaces whose clients follow other routes than everybody else.
    pub fn consumer_namespaces(&self) -> impl Iterator<Item = &str> {
        let attached = self.routes.iter().flat_map(|(service, routes)| {
            routes
                .iter()
                .map(|route| route.name.namespace.as_str())
                .filter(|namespace| *namespace != service.namespace)
        });
        attached
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
    }

    /// What applies to one port of a service, the most specific first.
    pub fn of_service(&self, service: &ObjectName, port: &Port) -> Applicable<'_> {
        let mut applicable = Vec::new();
        if let Some(section) = &port.name {
            applicable.extend(self.traffic(TargetKind::Service, service, Some(section)));
        }
        applicable.extend(self.traffic(TargetKind::Service, service, None));
        Applicable(applicable)
    }

    /// What applies to one rule of a route when it is followed to one port of a service.
    pub fn of_rule(
        &self,
        route: &ObjectName,
        rule: Option<&str>,
        service: &ObjectName,
        port: &Port,
    ) -> Applicable<'_> {
        let mut applicable = Vec::new();
        if let Some(rule) = rule {
            applicable.extend(self.traffic(TargetKind::HttpRoute, route, Some(rule)));
        }
        applicable.extend(self.traffic(TargetKind::HttpRoute, route, None));
        applicable.extend(self.of_service(service, port).0);
        Applicable(applicable)
    }

    fn traffic(
        &self,
        kind: TargetKind,
        name: &ObjectName,
        section: Option<&str>,
    ) -> impl Iterator<Item = &BackendTrafficPolicySpec> {
        let target = Target {
            kind,
            name: name.clone(),
            section: section.map(str::to_owned),
        };
        self.traffic
            .get(&target)
            .into_iter()
            .flatten()
            .map(Arc::as_ref)
    }

    /// What a pod asks of its callers.
    pub fn mutual_tls(&self, pod: &Pod) -> MutualTlsMode {
        self.peer_authentications
            .get(&pod.name.namespace)
            .into_iter()
            .flatten()
            .find(|spec| match &spec.selector {
                Some(selector) => pod.has_labels(&selector.match_labels),
                None => true,
            })
            .map_or(MutualTlsMode::default(), |spec| spec.mtls.mode)
    }

    /// What is told of the requests to a service, the most specific first.
    pub fn telemetry(&self, service: &ObjectName) -> impl Iterator<Item = &TelemetrySpec> {
        let target = Target {
            kind: TargetKind::Service,
            name: service.clone(),
            section: None,
        };
        self.telemetry
            .get(&target)
            .into_iter()
            .flatten()
            .chain(self.namespace_wide_telemetry(&service.namespace))
    }

    /// What is told of everything in a namespace.
    pub fn namespace_wide_telemetry(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = &TelemetrySpec> {
        self.namespace_telemetry
            .get(namespace)
            .into_iter()
            .flatten()
    }

    /// All of it, for what concerns the whole mesh.
    pub fn all_telemetry(&self) -> impl Iterator<Item = &TelemetrySpec> {
        let of_targets = self.telemetry.values().flatten();
        of_targets.chain(self.namespace_telemetry.values().flatten())
    }
}

/// The policies that apply to something, the most specific first.
#[derive(Debug, Clone, Default)]
pub struct Applicable<'a>(Vec<&'a BackendTrafficPolicySpec>);

impl<'a> Applicable<'a> {
    /// The first policy's word on one thing.
    pub fn first<T>(&self, of: impl Fn(&'a BackendTrafficPolicySpec) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(|policy| of(policy))
    }
}

fn oldest_first<S>(policies: &[Arc<Policy<S>>]) -> Vec<&Policy<S>> {
    let mut sorted: Vec<_> = policies.iter().map(Arc::as_ref).collect();
    sorted.sort_by(|one, other| {
        let age = |policy: &Policy<S>| {
            policy
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0)
        };
        // One without a time is newer than all that have one.
        let key = |policy: &Policy<S>| (age(policy).is_none(), age(policy));
        key(one)
            .cmp(&key(other))
            .then_with(|| one.namespace().cmp(other.namespace()))
            .then_with(|| one.name().cmp(other.name()))
    });
    sorted
}
