//! RDS: route configurations and their virtual hosts.

use std::collections::HashSet;
use std::sync::Arc;

use weft_proto::envoy::config::route::v3::virtual_host::TlsRequirementType;
use weft_proto::envoy::config::route::v3::{
    Route as WireRoute, RouteConfiguration, VirtualHost as WireVirtualHost, route,
};

use super::at::{At, Invalid, enumeration, harmless, nonempty, required, unsupported};
use super::filter::overrides::{inherit, of_host, of_route, overrides};
use super::headers::mutations;
use super::retry::retry_policy;
use super::route_action::forward;
use super::route_answer::{direct_response, redirect};
use super::route_match::route_match;
use crate::config::route::{Domain, Route, RouteAction, RouteConfig, VirtualHost};

/// A route configuration.
pub(super) fn route_config(at: &At<'_>, wire: &RouteConfiguration) -> Result<RouteConfig, Invalid> {
    let RouteConfiguration {
        name,
        virtual_hosts,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        validate_clusters,
        request_headers_to_remove,
        vhds,
        most_specific_header_mutations_wins,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata: _,
        vhost_header,
        route_specifiers,
    } = wire;
    unsupported!(at; internal_only_headers, vhds, most_specific_header_mutations_wins,
        cluster_specifier_plugins, request_mirror_policies, ignore_path_parameters_in_path_matching,
        vhost_header, route_specifiers);
    // A route whose cluster is missing waits for it in any case.
    harmless!(at; validate_clusters, max_direct_response_body_size_bytes);
    let around = overrides(
        &at.field("typed_per_filter_config"),
        typed_per_filter_config,
    )?;
    let mut routes = RouteConfig {
        name: name.as_str().into(),
        virtual_hosts: hosts(&at.field("virtual_hosts"), virtual_hosts)?,
        request_headers: mutations(
            at,
            ("request_headers_to_add", request_headers_to_add),
            ("request_headers_to_remove", request_headers_to_remove),
        )?,
        response_headers: mutations(
            at,
            ("response_headers_to_add", response_headers_to_add),
            ("response_headers_to_remove", response_headers_to_remove),
        )?,
        ignore_port: *ignore_port_in_host_matching,
    };
    inherit(&mut routes, &around);
    Ok(routes)
}

fn hosts(at: &At<'_>, wire: &[WireVirtualHost]) -> Result<Vec<VirtualHost>, Invalid> {
    let mut taken = HashSet::new();
    let mut hosts = Vec::with_capacity(wire.len());
    for (index, host) in wire.iter().enumerate() {
        let at = at.index(index);
        let host = virtual_host(&at, host)?;
        for (index, domain) in host.domains.iter().enumerate() {
            if !taken.insert(domain.clone()) {
                let at = at.field("domains");
                return Err(at
                    .index(index)
                    .refuse("another virtual host has this domain, too"));
            }
        }
        hosts.push(host);
    }
    Ok(hosts)
}

fn virtual_host(at: &At<'_>, wire: &WireVirtualHost) -> Result<VirtualHost, Invalid> {
    let WireVirtualHost {
        name,
        domains,
        routes,
        require_tls,
        virtual_clusters,
        rate_limits: _,
        request_headers_to_add,
        cors: _,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_remove,
        include_request_attempt_count,
        typed_per_filter_config: _,
        retry_policy: retry,
        hedge_policy,
        per_request_buffer_limit_bytes,
        include_attempt_count_in_response,
        retry_policy_typed_config,
        request_mirror_policies,
        include_is_timeout_retry_header,
        metadata: _,
        request_body_buffer_limit,
        route_specifiers,
    } = wire;
    match enumeration(&at.field("require_tls"), *require_tls)? {
        TlsRequirementType::None => {}
        other => return Err(at.field("require_tls").refuse_value(other)),
    }
    unsupported!(at; hedge_policy, retry_policy_typed_config, request_mirror_policies, route_specifiers);
    // The attempt count is always sent upstream.
    let _ = include_request_attempt_count;
    harmless!(at; virtual_clusters, per_request_buffer_limit_bytes,
        include_attempt_count_in_response, include_is_timeout_retry_header, request_body_buffer_limit);
    Ok(VirtualHost {
        name: nonempty(&at.field("name"), name)?.into(),
        domains: domains_of(&at.field("domains"), domains)?,
        routes: routes_of(&at.field("routes"), routes)?,
        retry: match retry {
            Some(policy) => Some(Arc::new(retry_policy(&at.field("retry_policy"), policy)?)),
            None => None,
        },
        request_headers: mutations(
            at,
            ("request_headers_to_add", request_headers_to_add),
            ("request_headers_to_remove", request_headers_to_remove),
        )?,
        response_headers: mutations(
            at,
            ("response_headers_to_add", response_headers_to_add),
            ("response_headers_to_remove", response_headers_to_remove),
        )?,
        filters: of_host(at, wire)?,
    })
}

fn domains_of(at: &At<'_>, wire: &[String]) -> Result<Vec<Domain>, Invalid> {
    if wire.is_empty() {
        return Err(at.refuse("must not be empty"));
    }
    wire.iter()
        .enumerate()
        .map(|(index, text)| domain(&at.index(index), text))
        .collect()
}

fn domain(at: &At<'_>, text: &str) -> Result<Domain, Invalid> {
    let text = nonempty(at, text)?.to_ascii_lowercase();
    let domain = match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(""), _) => return Ok(Domain::Any),
        (Some(suffix), None) if !suffix.contains('*') => Domain::Suffix(suffix.into()),
        (None, Some(prefix)) if !prefix.contains('*') => Domain::Prefix(prefix.into()),
        (None, None) if !text.contains('*') => Domain::Exact(text.into()),
        _ => {
            return Err(at.refuse(format_args!(
                "{text:?} has a star that is neither first nor last"
            )));
        }
    };
    Ok(domain)
}

fn routes_of(at: &At<'_>, wire: &[WireRoute]) -> Result<Vec<Route>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, route)| route_of(&at.index(index), route))
        .collect()
}

fn route_of(at: &At<'_>, wire: &WireRoute) -> Result<Route, Invalid> {
    let WireRoute {
        name,
        r#match,
        metadata: _,
        decorator,
        typed_per_filter_config: _,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = wire;
    unsupported!(at; tracing, route_specifiers);
    harmless!(at; decorator, per_request_buffer_limit_bytes, stat_prefix, request_body_buffer_limit);
    let at_match = at.field("match");
    Ok(Route {
        name: name.as_str().into(),
        matches: route_match(&at_match, required(&at_match, r#match.as_ref())?)?,
        action: action_of(at, action.as_ref())?,
        request_headers: mutations(
            at,
            ("request_headers_to_add", request_headers_to_add),
            ("request_headers_to_remove", request_headers_to_remove),
        )?,
        response_headers: mutations(
            at,
            ("response_headers_to_add", response_headers_to_add),
            ("response_headers_to_remove", response_headers_to_remove),
        )?,
        filters: of_route(at, wire)?,
    })
}

fn action_of(at: &At<'_>, wire: Option<&route::Action>) -> Result<RouteAction, Invalid> {
    Ok(match required(&at.field("action"), wire)? {
        route::Action::Route(action) => {
            RouteAction::Forward(Arc::new(forward(&at.field("route"), action)?))
        }
        route::Action::Redirect(action) => {
            RouteAction::Redirect(redirect(&at.field("redirect"), action)?)
        }
        route::Action::DirectResponse(action) => {
            RouteAction::Respond(direct_response(&at.field("direct_response"), action)?)
        }
        route::Action::FilterAction(_) => {
            return Err(at.field("filter_action").refuse("not supported"));
        }
        route::Action::NonForwardingAction(_) => {
            return Err(at.field("non_forwarding_action").refuse("not supported"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    #[test]
    fn domains_are_any_exact_or_have_one_star_at_an_end() {
        let notes = Notes::default();
        let at = At::root(&notes);

        assert_eq!(domain(&at, "*"), Ok(Domain::Any));
        assert_eq!(
            domain(&at, "Reviews.Default"),
            Ok(Domain::Exact("reviews.default".into()))
        );
        assert_eq!(
            domain(&at, "*.example.com"),
            Ok(Domain::Suffix(".example.com".into()))
        );
        assert_eq!(
            domain(&at, "reviews.*"),
            Ok(Domain::Prefix("reviews.".into()))
        );
        assert!(domain(&at, "a*b").is_err());
        assert!(domain(&at, "*a*").is_err());
        assert!(domain(&at, "").is_err());
    }

    #[test]
    fn two_virtual_hosts_of_one_domain_are_refused() {
        let notes = Notes::default();
        let host = |name: &str| WireVirtualHost {
            name: name.into(),
            domains: vec!["*".into()],
            ..WireVirtualHost::default()
        };
        let wire = RouteConfiguration {
            name: "reviews".into(),
            virtual_hosts: vec![host("a"), host("b")],
            ..RouteConfiguration::default()
        };

        let error = route_config(&At::root(&notes), &wire).expect_err("refused");

        assert_eq!(
            error.to_string(),
            "virtual_hosts[1].domains[0]: another virtual host has this domain, too"
        );
    }
}
