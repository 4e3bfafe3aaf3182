//! Requests that are forwarded to a cluster.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use weft_proto::envoy::config::core::v3::RoutingPriority;
use weft_proto::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, InternalRedirectAction,
    RequestMirrorPolicy,
};
use weft_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use weft_proto::envoy::config::route::v3::{RouteAction, WeightedCluster as WireWeighted};

use super::at::{
    At, Invalid, duration, enumeration, harmless, limit, nonempty, required, unsupported,
};
use super::filter::overrides::overrides;
use super::headers::{literal, mutations};
use super::retry::retry_policy;
use super::share::runtime_fraction;
use super::text::{header_name, substitution};
use crate::config::percent::Percent;
use crate::config::route::{
    Forward, HostRewrite, Mirror, PathRewrite, Target, WeightedCluster, WeightedClusters,
};

/// Envoy's: a request may take 15 seconds where its route doesn't say otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Stands for no limit where the absence of one means another limit: a year.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// To a cluster.
pub(super) fn forward(at: &At<'_>, wire: &RouteAction) -> Result<Forward, Invalid> {
    let RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        early_data_policy,
        retry_policy: retry,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits: _,
        include_vh_rate_limits: _,
        hash_policy,
        cors: _,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        flush_timeout,
        path_rewrite,
        cluster_specifier,
        host_rewrite_specifier,
    } = wire;
    unsupported!(at; metadata_match, path_rewrite_policy, append_x_forwarded_host,
        retry_policy_typed_config, max_grpc_timeout, grpc_timeout_offset, upgrade_configs,
        internal_redirect_policy, hedge_policy, max_stream_duration);
    harmless!(at; early_data_policy, hash_policy,
        max_internal_redirects, flush_timeout);
    match enumeration(&at.field("priority"), *priority)? {
        RoutingPriority::Default => {}
        RoutingPriority::High => {
            return Err(at.field("priority").refuse_value(RoutingPriority::High));
        }
    }
    match enumeration(
        &at.field("internal_redirect_action"),
        *internal_redirect_action,
    )? {
        InternalRedirectAction::PassThroughInternalRedirect => {}
        other => return Err(at.field("internal_redirect_action").refuse_value(other)),
    }
    let not_found = enumeration(
        &at.field("cluster_not_found_response_code"),
        *cluster_not_found_response_code,
    )?;
    let retry = match retry {
        Some(policy) => Some(Arc::new(retry_policy(&at.field("retry_policy"), policy)?)),
        None => None,
    };
    let path = match regex_rewrite {
        Some(rewrite) => Some(PathRewrite::Regex(substitution(
            &at.field("regex_rewrite"),
            rewrite,
        )?)),
        None => plain_rewrite(at, prefix_rewrite, path_rewrite)?,
    };
    Ok(Forward {
        target: target(at, cluster_specifier.as_ref())?,
        path,
        host: host_rewrite_specifier
            .as_ref()
            .map(|wire| host(at, wire))
            .transpose()?
            .flatten(),
        timeout: limit(
            &at.field("timeout"),
            timeout.as_ref(),
            Some(DEFAULT_TIMEOUT),
        )?,
        idle_timeout: duration(&at.field("idle_timeout"), idle_timeout.as_ref())?
            .map(|timeout| if timeout.is_zero() { NO_LIMIT } else { timeout }),
        retry,
        mirrors: mirrors(
            &at.field("request_mirror_policies"),
            request_mirror_policies,
        )?,
        cluster_not_found: match not_found {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
    })
}

fn target(at: &At<'_>, wire: Option<&ClusterSpecifier>) -> Result<Target, Invalid> {
    Ok(match required(&at.field("cluster_specifier"), wire)? {
        ClusterSpecifier::Cluster(cluster) => {
            Target::Cluster(nonempty(&at.field("cluster"), cluster)?.into())
        }
        ClusterSpecifier::ClusterHeader(name) => {
            Target::Header(header_name(&at.field("cluster_header"), name)?)
        }
        ClusterSpecifier::WeightedClusters(clusters) => {
            Target::Weighted(weighted(&at.field("weighted_clusters"), clusters)?)
        }
        ClusterSpecifier::ClusterSpecifierPlugin(name) => {
            return Err(at.field("cluster_specifier_plugin").refuse_value(name));
        }
        ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            return Err(at
                .field("inline_cluster_specifier_plugin")
                .refuse("not supported"));
        }
    })
}

fn weighted(at: &At<'_>, wire: &WireWeighted) -> Result<WeightedClusters, Invalid> {
    let WireWeighted {
        clusters,
        runtime_key_prefix,
        total_weight,
        random_value_specifier,
    } = wire;
    unsupported!(at; random_value_specifier);
    // Shares are of the sum of the weights, whatever the sum is.
    harmless!(at; runtime_key_prefix, total_weight);
    let at = at.field("clusters");
    let clusters = clusters
        .iter()
        .enumerate()
        .map(|(index, cluster)| cluster_weight(&at.index(index), cluster))
        .collect::<Result<_, _>>()?;
    WeightedClusters::new(clusters)
        .ok_or_else(|| at.refuse("weights sum to nothing or to too much"))
}

fn cluster_weight(at: &At<'_>, wire: &ClusterWeight) -> Result<WeightedCluster, Invalid> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = wire;
    unsupported!(at; cluster_header, metadata_match, host_rewrite_specifier);
    Ok(WeightedCluster {
        cluster: nonempty(&at.field("name"), name)?.into(),
        weight: *required(&at.field("weight"), weight.as_ref())?,
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
        filters: overrides(
            &at.field("typed_per_filter_config"),
            typed_per_filter_config,
        )?,
    })
}

fn plain_rewrite(at: &At<'_>, prefix: &str, whole: &str) -> Result<Option<PathRewrite>, Invalid> {
    Ok(match (prefix, whole) {
        ("", "") => None,
        (prefix, "") => Some(PathRewrite::Prefix(prefix.into())),
        ("", whole) => Some(PathRewrite::Full(
            literal(&at.field("path_rewrite"), whole)?.into(),
        )),
        _ => {
            return Err(at
                .field("path_rewrite")
                .refuse("`prefix_rewrite` is set, too"));
        }
    })
}

fn host(at: &At<'_>, wire: &HostRewriteSpecifier) -> Result<Option<HostRewrite>, Invalid> {
    let to = |at: At<'_>, text: &str| {
        HeaderValue::from_str(&literal(&at, text)?)
            .map(|host| Some(HostRewrite::Literal(host)))
            .map_err(|_| at.refuse_value(text))
    };
    match wire {
        HostRewriteSpecifier::HostRewriteLiteral(host) => {
            to(at.field("host_rewrite_literal"), &host.replace('%', "%%"))
        }
        HostRewriteSpecifier::HostRewrite(host) => to(at.field("host_rewrite"), host),
        HostRewriteSpecifier::AutoHostRewrite(true) => Ok(Some(HostRewrite::Endpoint)),
        HostRewriteSpecifier::AutoHostRewrite(false) => Ok(None),
        HostRewriteSpecifier::HostRewriteHeader(name) => Ok(Some(HostRewrite::Header(
            header_name(&at.field("host_rewrite_header"), name)?,
        ))),
        HostRewriteSpecifier::HostRewritePathRegex(_) => {
            Err(at.field("host_rewrite_path_regex").refuse("not supported"))
        }
    }
}

fn mirrors(at: &At<'_>, wire: &[RequestMirrorPolicy]) -> Result<Vec<Mirror>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, policy)| mirror(&at.index(index), policy))
        .collect()
}

fn mirror(at: &At<'_>, wire: &RequestMirrorPolicy) -> Result<Mirror, Invalid> {
    let RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction: fraction,
        trace_sampled,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = wire;
    unsupported!(at; cluster_header, request_headers_mutations, host_rewrite_literal);
    harmless!(at; trace_sampled, disable_shadow_host_suffix_append);
    Ok(Mirror {
        cluster: nonempty(&at.field("cluster"), cluster)?.into(),
        share: match fraction {
            Some(fraction) => runtime_fraction(&at.field("runtime_fraction"), fraction)?,
            None => Percent::ALL,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    fn to_cluster() -> RouteAction {
        RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster("reviews".into())),
            ..RouteAction::default()
        }
    }

    fn forwarded(wire: &RouteAction) -> Result<Forward, Invalid> {
        let notes = Notes::default();
        forward(&At::root(&notes), wire)
    }

    #[test]
    fn a_request_may_take_15_seconds_unless_its_route_says_otherwise() {
        let mut wire = to_cluster();
        assert_eq!(
            forwarded(&wire).expect("valid").timeout,
            Some(DEFAULT_TIMEOUT)
        );

        wire.timeout = Some(prost_types::Duration::default());
        assert_eq!(forwarded(&wire).expect("valid").timeout, None);
    }

    #[test]
    fn weights_without_a_sum_are_refused_by_path() {
        let mut wire = to_cluster();
        wire.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WireWeighted {
            clusters: vec![ClusterWeight {
                name: "a".into(),
                weight: Some(0),
                ..ClusterWeight::default()
            }],
            ..WireWeighted::default()
        }));

        assert_eq!(
            forwarded(&wire).expect_err("refused").to_string(),
            "weighted_clusters.clusters: weights sum to nothing or to too much"
        );
    }

    #[test]
    fn what_would_be_left_undone_is_refused_with_its_value() {
        let mut wire = to_cluster();
        wire.append_x_forwarded_host = true;

        assert_eq!(
            forwarded(&wire).expect_err("refused").to_string(),
            "append_x_forwarded_host: true is not supported"
        );
    }
}
