//! What becomes of a request that a rule matches: redirected, answered, or forwarded, changed on the way.

use weft_proto::envoy::config::core::v3 as core;
use weft_proto::envoy::config::route::v3 as route;
use weft_proto::wkt;

use crate::kinds::http_route::{
    BackendReference, FilterAction, Header, HeaderModifier, HttpRouteMatch, HttpRouteRule,
};
use crate::mesh::policies::Applicable;
use crate::mesh::services::{Outbound, Port};
use crate::mesh::{Mesh, ObjectName};

use super::retries;
use super::rewrites::{apply_rewrite, matched_prefix, redirection};

/// Where a rule is followed.
pub(super) struct Context<'a> {
    pub(super) mesh: &'a Mesh,
    /// The port that the client addressed.
    pub(super) port: &'a Port,
    /// The namespace of the rule's route, in which its backends are looked for.
    pub(super) route_namespace: &'a str,
    pub(super) policies: &'a Applicable<'a>,
}

impl Context<'_> {
    /// Completes a route with what the rule does.
    pub(super) fn act(
        &self,
        route: &mut route::Route,
        rule: &HttpRouteRule,
        condition: Option<&HttpRouteMatch>,
    ) {
        let prefix = matched_prefix(condition);
        let mut forward = limits(Some(rule), self.policies);
        for action in rule.filters.iter().filter_map(|filter| filter.action()) {
            match action {
                FilterAction::RequestHeaders(modifier) => {
                    route.request_headers_to_add.extend(added(modifier));
                    route
                        .request_headers_to_remove
                        .extend_from_slice(&modifier.remove);
                }
                FilterAction::ResponseHeaders(modifier) => {
                    route.response_headers_to_add.extend(added(modifier));
                    route
                        .response_headers_to_remove
                        .extend_from_slice(&modifier.remove);
                }
                FilterAction::Redirect(redirect) => {
                    let redirect = redirection(redirect, prefix);
                    route.action = Some(route::route::Action::Redirect(redirect));
                    return;
                }
                FilterAction::Rewrite(rewrite) => apply_rewrite(&mut forward, rewrite, prefix),
            }
        }
        route.action = Some(match self.backends(rule) {
            Some(clusters) => {
                forward.cluster_specifier = Some(clusters);
                // Gateway API wants a 500 for a backend that does not exist.
                forward.cluster_not_found_response_code =
                    route::route_action::ClusterNotFoundResponseCode::InternalServerError.into();
                route::route::Action::Route(forward)
            }
            None => route::route::Action::DirectResponse(no_backend()),
        });
    }

    /// None where no backend takes any share.
    fn backends(&self, rule: &HttpRouteRule) -> Option<route::route_action::ClusterSpecifier> {
        use route::route_action::ClusterSpecifier;

        let backends: Vec<_> = rule
            .backend_refs
            .iter()
            .filter(|backend| backend.weight > 0)
            .collect();
        match backends.as_slice() {
            [] => None,
            [only] => Some(ClusterSpecifier::Cluster(self.cluster(only))),
            several => {
                let clusters =
                    several
                        .iter()
                        .map(|backend| route::weighted_cluster::ClusterWeight {
                            name: self.cluster(backend),
                            weight: Some(backend.weight),
                            ..route::weighted_cluster::ClusterWeight::default()
                        });
                Some(ClusterSpecifier::WeightedClusters(route::WeightedCluster {
                    clusters: clusters.collect(),
                    ..route::WeightedCluster::default()
                }))
            }
        }
    }

    /// Where the reference names no port: the one the client addressed, where the backend has it too, else
    /// the backend's first.
    fn cluster(&self, backend: &BackendReference) -> String {
        let namespace = backend.namespace.as_deref().unwrap_or(self.route_namespace);
        let service = ObjectName::new(namespace, &backend.name);
        let port = backend.port.unwrap_or_else(|| {
            let ports = self
                .mesh
                .service(&service)
                .map_or(&[][..], |service| &service.ports);
            let same = ports.iter().find(|port| port.number == self.port.number);
            same.or(ports.first())
                .map_or(self.port.number, |port| port.number)
        });
        let name = Outbound {
            service: &service,
            port,
        };
        name.to_string()
    }
}

/// Time-outs and retries of what is forwarded. A time-out is always said: left out it would be Envoy's 15 s.
pub(super) fn limits(
    rule: Option<&HttpRouteRule>,
    policies: &Applicable<'_>,
) -> route::RouteAction {
    let timeouts = rule.and_then(|rule| rule.timeouts).unwrap_or_default();
    let of_policy = || policies.first(|policy| policy.timeout?.http?.request_timeout);
    let timeout = timeouts.request.or_else(of_policy);
    route::RouteAction {
        timeout: Some(
            timeout.map_or_else(prost_types::Duration::default, |timeout| {
                wkt::to_wire(timeout.into())
            }),
        ),
        retry_policy: retries::of(
            rule.and_then(|rule| rule.retry.as_ref()),
            policies.first(|policy| policy.retry.as_ref()),
            timeouts.backend_request,
        ),
        ..route::RouteAction::default()
    }
}

fn no_backend() -> route::DirectResponseAction {
    route::DirectResponseAction {
        status: 500,
        body: Some(core::DataSource {
            specifier: Some(core::data_source::Specifier::InlineString(
                "the route that matched has no backend".to_owned(),
            )),
            ..core::DataSource::default()
        }),
        ..route::DirectResponseAction::default()
    }
}

fn added(modifier: &HeaderModifier) -> Vec<core::HeaderValueOption> {
    use core::header_value_option::HeaderAppendAction;

    let option = |header: &Header, action: HeaderAppendAction| core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: header.name.clone(),
            value: literal(&header.value),
            ..core::HeaderValue::default()
        }),
        append_action: action.into(),
        keep_empty_value: true,
        ..core::HeaderValueOption::default()
    };
    let set = modifier
        .set
        .iter()
        .map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = modifier
        .add
        .iter()
        .map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

/// Envoy reads `%` in header values as the start of a command.
fn literal(value: &str) -> String {
    value.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_sign_in_a_header_is_no_command() {
        assert_eq!(literal("100%"), "100%%");
    }
}
