//! RDS: which requests to a port of a service go where, changed how, in what time, tried again when.

use std::collections::BTreeMap;

use weft_proto::envoy::config::route::v3 as route;
use weft_proto::envoy::extensions::filters::common::fault::v3 as common_fault;
use weft_proto::envoy::extensions::filters::http::fault::v3 as fault;
use weft_proto::{Any, any, wkt};

use crate::kinds::backend_traffic_policy::{FaultAbort, FaultDelay, FaultInjection};
use crate::kinds::http_route::{HttpRouteMatch, HttpRouteRule};
use crate::mesh::Mesh;
use crate::mesh::policies::{Applicable, AttachedRoute};
use crate::mesh::services::{Outbound, Port, Service};

use super::{http, wire};

mod actions;
mod matches;
mod retries;
mod rewrites;

use actions::Context;

/// The route table of one port of a service, for clients of one namespace.
pub(super) fn table(
    mesh: &Mesh,
    service: &Service,
    port: &Port,
    client_namespace: &str,
) -> route::RouteConfiguration {
    let name = Outbound {
        service: &service.name,
        port: port.number,
    }
    .to_string();
    let attached = mesh.policies.routes(service, port, client_namespace);
    let mut rules: Vec<_> = attached.iter().flat_map(|route| rules(route)).collect();
    // Stable: what Gateway API calls a tie is decided by the order of the routes, then of the rules.
    rules.sort_by_key(|rule| matches::precedence(rule.condition));

    let mut routes: Vec<_> = rules
        .iter()
        .map(|rule| translate_rule(mesh, service, port, rule))
        .collect();
    routes.push(default_route(mesh, service, port, &name));
    route::RouteConfiguration {
        virtual_hosts: vec![route::VirtualHost {
            name: name.clone(),
            domains: vec!["*".to_owned()],
            routes,
            include_request_attempt_count: true,
            ..route::VirtualHost::default()
        }],
        name,
        ..route::RouteConfiguration::default()
    }
}

/// One condition of one rule: what becomes one route of Envoy's.
struct FlatRule<'a> {
    route: &'a AttachedRoute,
    index: usize,
    rule: &'a HttpRouteRule,
    condition: Option<&'a HttpRouteMatch>,
}

impl FlatRule<'_> {
    /// `<namespace>/<route>/<rule>`: what metrics and logs call it.
    fn name(&self) -> String {
        match &self.rule.name {
            Some(name) => format!("{}/{name}", self.route.name),
            None => format!("{}/{}", self.route.name, self.index),
        }
    }
}

/// A rule without a condition is for every request.
fn rules(route: &AttachedRoute) -> Vec<FlatRule<'_>> {
    let mut flat = Vec::new();
    for (index, rule) in route.rules.iter().enumerate() {
        let conditions = match rule.matches.is_empty() {
            true => vec![None],
            false => rule.matches.iter().map(Some).collect(),
        };
        flat.extend(conditions.into_iter().map(|condition| FlatRule {
            route,
            index,
            rule,
            condition,
        }));
    }
    flat
}

fn translate_rule(
    mesh: &Mesh,
    service: &Service,
    port: &Port,
    flat: &FlatRule<'_>,
) -> route::Route {
    let policies = mesh.policies.of_rule(
        &flat.route.name,
        flat.rule.name.as_deref(),
        &service.name,
        port,
    );
    let context = Context {
        mesh,
        port,
        route_namespace: &flat.route.name.namespace,
        policies: &policies,
    };
    let mut route = route::Route {
        name: flat.name(),
        r#match: Some(matches::of(flat.condition)),
        typed_per_filter_config: per_filter(&policies),
        ..route::Route::default()
    };
    context.act(&mut route, flat.rule, flat.condition);
    route
}

/// What no rule matches goes to the service that was called.
fn default_route(mesh: &Mesh, service: &Service, port: &Port, cluster: &str) -> route::Route {
    let policies = mesh.policies.of_service(&service.name, port);
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(
            cluster.to_owned(),
        )),
        ..actions::limits(None, &policies)
    };
    route::Route {
        name: "default".to_owned(),
        r#match: Some(matches::of(None)),
        action: Some(route::route::Action::Route(action)),
        typed_per_filter_config: per_filter(&policies),
        ..route::Route::default()
    }
}

fn per_filter(policies: &Applicable<'_>) -> BTreeMap<String, Any> {
    policies
        .first(|policy| policy.fault_injection)
        .map(|policy| (http::FAULT.to_owned(), any::pack(&fault_injection(policy))))
        .into_iter()
        .collect()
}

fn fault_injection(policy: FaultInjection) -> fault::HttpFault {
    let FaultInjection { delay, abort } = policy;
    fault::HttpFault {
        delay: delay.map(fault_delay),
        abort: abort.and_then(fault_abort),
        ..fault::HttpFault::default()
    }
}

fn fault_delay(policy: FaultDelay) -> common_fault::FaultDelay {
    let FaultDelay {
        fixed_delay,
        percentage,
    } = policy;
    common_fault::FaultDelay {
        fault_delay_secifier: Some(common_fault::fault_delay::FaultDelaySecifier::FixedDelay(
            wkt::to_wire(fixed_delay.into()),
        )),
        percentage: Some(wire::fraction(percentage)),
    }
}

/// None where the policy names no status, which validation refuses.
fn fault_abort(policy: FaultAbort) -> Option<fault::FaultAbort> {
    let FaultAbort {
        http_status,
        grpc_status,
        percentage,
    } = policy;
    let by_http =
        http_status.map(|status| fault::fault_abort::ErrorType::HttpStatus(u32::from(status)));
    let by_grpc = || grpc_status.map(fault::fault_abort::ErrorType::GrpcStatus);
    Some(fault::FaultAbort {
        error_type: Some(by_http.or_else(by_grpc)?),
        percentage: Some(wire::fraction(percentage)),
        ..fault::FaultAbort::default()
    })
}
