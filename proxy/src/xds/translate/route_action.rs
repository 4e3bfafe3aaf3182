//! Requests that are forwarded to a cluster.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use weft_proto::envoy::config::core::v3::RoutingPriority;
use weft_proto::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, MaxStreamDuration,
};
use weft_proto::envoy::config::route::v3::{HedgePolicy, RouteAction};
use weft_proto::envoy::r#type::v3::fractional_percent::DenominatorType;

use super::at::{
    At, Invalid, duration, enumeration, harmless, limit, nonempty, required, unsupported,
};
use super::hash_policy::hash_policies;
use super::headers::template;
use super::retry::retry_policy;
use super::route_hosts::host;
use super::route_mirror::mirrors;
use super::route_redirects::internal_redirects;
use super::route_upgrades::route_upgrades;
use super::route_weighted::weighted;
use super::subsets::asked;
use super::text::{header_name, substitution};
use crate::config::affinity::{AimConfig, Priority};
use crate::config::balancing::Criteria;
use crate::config::route::limits::{GrpcTimeout, StreamDuration};
use crate::config::route::{Forward, PathRewrite, Target};

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
    unsupported!(at; path_rewrite_policy, retry_policy_typed_config);
    harmless!(at; early_data_policy, flush_timeout);
    let not_found = at.field("cluster_not_found_response_code");
    let not_found = enumeration(&not_found, *cluster_not_found_response_code)?;
    let legacy_redirects = (*internal_redirect_action, *max_internal_redirects);
    let subset = asked(metadata_match.as_ref());
    Ok(Forward {
        target: target(at, cluster_specifier.as_ref(), subset.as_ref())?,
        aim: AimConfig {
            hash: hash_policies(&at.field("hash_policy"), hash_policy)?,
            subset,
            priority: match enumeration(&at.field("priority"), *priority)? {
                RoutingPriority::Default => Priority::Default,
                RoutingPriority::High => Priority::High,
            },
        },
        path: match regex_rewrite {
            Some(rewrite) => Some(PathRewrite::Regex(substitution(
                &at.field("regex_rewrite"),
                rewrite,
            )?)),
            None => plain_rewrite(at, prefix_rewrite, path_rewrite)?,
        },
        host: host(at, host_rewrite_specifier.as_ref())?,
        appends_forwarded_host: *append_x_forwarded_host,
        timeout: limit(
            &at.field("timeout"),
            timeout.as_ref(),
            Some(DEFAULT_TIMEOUT),
        )?,
        grpc_timeout: grpc_timeout(at, max_grpc_timeout.as_ref(), grpc_timeout_offset.as_ref())?,
        stream_duration: max_stream_duration
            .as_ref()
            .map(|wire| stream_duration(&at.field("max_stream_duration"), wire))
            .transpose()?,
        idle_timeout: duration(&at.field("idle_timeout"), idle_timeout.as_ref())?
            .map(|timeout| if timeout.is_zero() { NO_LIMIT } else { timeout }),
        retry: match retry {
            Some(policy) => Some(Arc::new(retry_policy(&at.field("retry_policy"), policy)?)),
            None => None,
        },
        hedges: match hedge_policy {
            Some(wire) => hedges(&at.field("hedge_policy"), wire)?,
            None => false,
        },
        max_kept_bytes: None,
        mirrors: mirrors(
            &at.field("request_mirror_policies"),
            request_mirror_policies,
        )?,
        upgrades: route_upgrades(&at.field("upgrade_configs"), upgrade_configs)?,
        internal_redirects: internal_redirects(
            at,
            internal_redirect_policy.as_ref(),
            legacy_redirects,
        )?
        .map(Arc::new),
        cluster_not_found: match not_found {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
    })
}

/// Whether a try that took too long goes on beside the next: the one part of hedging that Envoy has.
pub(super) fn hedges(at: &At<'_>, wire: &HedgePolicy) -> Result<bool, Invalid> {
    let HedgePolicy {
        initial_requests,
        additional_request_chance,
        hedge_on_per_try_timeout,
    } = wire;
    if let Some(requests) = initial_requests.filter(|requests| *requests != 1) {
        return Err(at.field("initial_requests").refuse_value(requests));
    }
    if let Some(chance) = additional_request_chance
        && chance.numerator != 0
    {
        let at = at.field("additional_request_chance");
        enumeration::<DenominatorType>(&at.field("denominator"), chance.denominator)?;
        return Err(at.refuse_value(chance.numerator));
    }
    Ok(*hedge_on_per_try_timeout)
}

fn grpc_timeout(
    at: &At<'_>,
    max: Option<&prost_types::Duration>,
    offset: Option<&prost_types::Duration>,
) -> Result<Option<GrpcTimeout>, Invalid> {
    let offset = duration(&at.field("grpc_timeout_offset"), offset)?;
    let max = duration(&at.field("max_grpc_timeout"), max)?;
    Ok(max.map(|max| GrpcTimeout { max, offset }))
}

fn stream_duration(at: &At<'_>, wire: &MaxStreamDuration) -> Result<StreamDuration, Invalid> {
    let MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = wire;
    let at_max = at.field("grpc_timeout_header_max");
    let at_offset = at.field("grpc_timeout_header_offset");
    Ok(StreamDuration {
        max: duration(
            &at.field("max_stream_duration"),
            max_stream_duration.as_ref(),
        )?,
        grpc_max: duration(&at_max, grpc_timeout_header_max.as_ref())?,
        grpc_offset: duration(&at_offset, grpc_timeout_header_offset.as_ref())?,
    })
}

fn target(
    at: &At<'_>,
    wire: Option<&ClusterSpecifier>,
    subset: Option<&Arc<Criteria>>,
) -> Result<Target, Invalid> {
    Ok(match required(&at.field("cluster_specifier"), wire)? {
        ClusterSpecifier::Cluster(cluster) => {
            Target::Cluster(nonempty(&at.field("cluster"), cluster)?.into())
        }
        ClusterSpecifier::ClusterHeader(name) => {
            let name = if name == ":authority" { "host" } else { name };
            Target::Header(header_name(&at.field("cluster_header"), name)?)
        }
        ClusterSpecifier::WeightedClusters(clusters) => {
            Target::Weighted(weighted(&at.field("weighted_clusters"), clusters, subset)?)
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

fn plain_rewrite(at: &At<'_>, prefix: &str, whole: &str) -> Result<Option<PathRewrite>, Invalid> {
    Ok(match (prefix, whole) {
        ("", "") => None,
        (prefix, "") => Some(PathRewrite::Prefix(prefix.into())),
        ("", whole) => Some(whole_rewrite(&at.field("path_rewrite"), whole)?),
        _ => {
            return Err(at
                .field("path_rewrite")
                .refuse("`prefix_rewrite` is set, too"));
        }
    })
}

/// A whole path, which may hold operators.
pub(super) fn whole_rewrite(at: &At<'_>, text: &str) -> Result<PathRewrite, Invalid> {
    let template = template(at, text)?;
    Ok(match template.literal() {
        Some(path) => PathRewrite::Full(path.into()),
        None => PathRewrite::Formatted(template),
    })
}

#[cfg(test)]
mod tests {
    use weft_proto::envoy::config::route::v3::WeightedCluster as WireWeighted;
    use weft_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;

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
        wire.hedge_policy = Some(HedgePolicy {
            initial_requests: Some(2),
            ..HedgePolicy::default()
        });

        assert_eq!(
            forwarded(&wire).expect_err("refused").to_string(),
            "hedge_policy.initial_requests: 2 is not supported"
        );
    }
}
