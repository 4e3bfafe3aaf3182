//! RDS: route configurations and their virtual hosts.

use std::collections::HashSet;
use std::sync::Arc;

use weft_proto::envoy::config::route::v3::virtual_host::TlsRequirementType;
use weft_proto::envoy::config::route::v3::{
    Decorator as WireDecorator, Route as WireRoute, RouteConfiguration,
    VirtualHost as WireVirtualHost, route,
};

use super::at::{At, Invalid, enumeration, harmless, nonempty, required, unsupported};
use super::filter::overrides::{inherit, of_host, of_route, overrides};
use super::headers::formatted_mutations;
use super::retry::retry_policy;
use super::route_action::{forward, hedges};
use super::route_answer::{direct_response, redirect};
use super::route_match::route_match;
use super::route_mirror::mirrors;
use super::text::header_name;
use crate::config::route::conditions::TlsRequirement;
use crate::config::route::{
    Decorator, Domain, Mirror, Route, RouteAction, RouteConfig, VirtualHost,
};

/// Envoy's: bodies of direct responses are no longer, unless more are allowed.
const MAX_ANSWER_BYTES: usize = 4096;

/// What holds for routes that say nothing themselves.
#[derive(Clone)]
struct Around {
    mirrors: Vec<Mirror>,
    hedges: bool,
    max_kept_bytes: Option<usize>,
    max_answer_bytes: usize,
}

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
    unsupported!(at; vhds, cluster_specifier_plugins, route_specifiers);
    let filters = overrides(
        &at.field("typed_per_filter_config"),
        typed_per_filter_config,
    )?;
    let at_mirrors = at.field("request_mirror_policies");
    let around = Around {
        mirrors: mirrors(&at_mirrors, request_mirror_policies)?,
        hedges: false,
        max_kept_bytes: None,
        max_answer_bytes: max_direct_response_body_size_bytes
            .map_or(MAX_ANSWER_BYTES, |bytes| bytes as usize),
    };
    let at_internal = at.field("internal_only_headers");
    let mut routes = RouteConfig {
        name: name.as_str().into(),
        virtual_hosts: hosts(&at.field("virtual_hosts"), virtual_hosts, &around)?,
        request_headers: formatted_mutations(
            at,
            ("request_headers_to_add", request_headers_to_add),
            ("request_headers_to_remove", request_headers_to_remove),
        )?,
        response_headers: formatted_mutations(
            at,
            ("response_headers_to_add", response_headers_to_add),
            ("response_headers_to_remove", response_headers_to_remove),
        )?,
        ignore_port: *ignore_port_in_host_matching,
        ignore_path_parameters: *ignore_path_parameters_in_path_matching,
        has_known_clusters: validate_clusters.unwrap_or(true),
        innermost_wins: *most_specific_header_mutations_wins,
        host_header: match vhost_header.as_str() {
            "" => None,
            name => Some(header_name(&at.field("vhost_header"), name)?),
        },
        internal_headers: internal_only_headers
            .iter()
            .enumerate()
            .map(|(index, name)| header_name(&at_internal.index(index), name))
            .collect::<Result<_, _>>()?,
    };
    inherit(&mut routes, &filters);
    Ok(routes)
}

fn hosts(
    at: &At<'_>,
    wire: &[WireVirtualHost],
    around: &Around,
) -> Result<Vec<VirtualHost>, Invalid> {
    let mut taken = HashSet::new();
    let mut hosts = Vec::with_capacity(wire.len());
    for (index, host) in wire.iter().enumerate() {
        let at = at.index(index);
        let host = virtual_host(&at, host, around)?;
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

fn virtual_host(
    at: &At<'_>,
    wire: &WireVirtualHost,
    around: &Around,
) -> Result<VirtualHost, Invalid> {
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
    unsupported!(at; retry_policy_typed_config, route_specifiers);
    harmless!(at; virtual_clusters);
    let mut around = around.clone();
    if !request_mirror_policies.is_empty() {
        let at = at.field("request_mirror_policies");
        around.mirrors = mirrors(&at, request_mirror_policies)?;
    }
    if let Some(wire) = hedge_policy {
        around.hedges = hedges(&at.field("hedge_policy"), wire)?;
    }
    let max_kept = kept_bytes(*request_body_buffer_limit, *per_request_buffer_limit_bytes);
    around.max_kept_bytes = max_kept.or(around.max_kept_bytes);
    Ok(VirtualHost {
        name: nonempty(&at.field("name"), name)?.into(),
        domains: domains_of(&at.field("domains"), domains)?,
        routes: routes_of(&at.field("routes"), routes, &around)?,
        retry: match retry {
            Some(policy) => Some(Arc::new(retry_policy(&at.field("retry_policy"), policy)?)),
            None => None,
        },
        request_headers: formatted_mutations(
            at,
            ("request_headers_to_add", request_headers_to_add),
            ("request_headers_to_remove", request_headers_to_remove),
        )?,
        response_headers: formatted_mutations(
            at,
            ("response_headers_to_add", response_headers_to_add),
            ("response_headers_to_remove", response_headers_to_remove),
        )?,
        filters: of_host(at, wire)?,
        tls: match enumeration(&at.field("require_tls"), *require_tls)? {
            TlsRequirementType::None => TlsRequirement::None,
            TlsRequirementType::ExternalOnly => TlsRequirement::External,
            TlsRequirementType::All => TlsRequirement::All,
        },
        tells_attempts: *include_request_attempt_count,
        answers_attempts: *include_attempt_count_in_response,
        tells_timeout_retries: *include_is_timeout_retry_header,
    })
}

/// How much of a body is kept for another try: the newer field goes before the older.
fn kept_bytes(newer: Option<u64>, older: Option<u32>) -> Option<usize> {
    newer
        .or(older.map(u64::from))
        .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
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

fn routes_of(at: &At<'_>, wire: &[WireRoute], around: &Around) -> Result<Vec<Route>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, route)| route_of(&at.index(index), route, around))
        .collect()
}

fn route_of(at: &At<'_>, wire: &WireRoute, around: &Around) -> Result<Route, Invalid> {
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
    harmless!(at; stat_prefix);
    let max_kept = kept_bytes(*request_body_buffer_limit, *per_request_buffer_limit_bytes);
    let at_match = at.field("match");
    Ok(Route {
        name: name.as_str().into(),
        matches: route_match(&at_match, required(&at_match, r#match.as_ref())?)?,
        action: action_of(at, action.as_ref(), around, max_kept)?,
        decorator: decorator
            .as_ref()
            .map(|wire| decoration(&at.field("decorator"), wire).map(Arc::new))
            .transpose()?,
        request_headers: formatted_mutations(
            at,
            ("request_headers_to_add", request_headers_to_add),
            ("request_headers_to_remove", request_headers_to_remove),
        )?,
        response_headers: formatted_mutations(
            at,
            ("response_headers_to_add", response_headers_to_add),
            ("response_headers_to_remove", response_headers_to_remove),
        )?,
        filters: of_route(at, wire)?,
    })
}

fn decoration(at: &At<'_>, wire: &WireDecorator) -> Result<Decorator, Invalid> {
    let WireDecorator {
        operation,
        propagate,
    } = wire;
    Ok(Decorator {
        operation: nonempty(&at.field("operation"), operation)?.into(),
        is_told: propagate.unwrap_or(true),
    })
}

fn action_of(
    at: &At<'_>,
    wire: Option<&route::Action>,
    around: &Around,
    max_kept: Option<usize>,
) -> Result<RouteAction, Invalid> {
    Ok(match required(&at.field("action"), wire)? {
        route::Action::Route(action) => {
            let mut forward = forward(&at.field("route"), action)?;
            if forward.mirrors.is_empty() {
                forward.mirrors.clone_from(&around.mirrors);
            }
            if action.hedge_policy.is_none() {
                forward.hedges = around.hedges;
            }
            forward.max_kept_bytes = max_kept.or(around.max_kept_bytes);
            RouteAction::Forward(Arc::new(forward))
        }
        route::Action::Redirect(action) => {
            RouteAction::Redirect(redirect(&at.field("redirect"), action)?)
        }
        route::Action::DirectResponse(action) => {
            let at = at.field("direct_response");
            RouteAction::Respond(direct_response(&at, action, around.max_answer_bytes)?)
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
