//! What becomes of a request: forwarded, redirected, or answered.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use weft_proto::envoy::config::core::v3::data_source::Specifier;
use weft_proto::envoy::config::core::v3::{DataSource, RoutingPriority};
use weft_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use weft_proto::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, InternalRedirectAction,
    RequestMirrorPolicy,
};
use weft_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use weft_proto::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RouteAction, WeightedCluster as WireWeighted,
};

use super::at::{
    At, Invalid, duration, enumeration, harmless, limit, nonempty, required, unsupported,
};
use super::fault::overrides;
use super::headers::{literal, mutations};
use super::retry::retry_policy;
use super::share::runtime_fraction;
use super::text::{header_name, substitution};
use crate::config::percent::Percent;
use crate::config::route::{
    DirectResponse, Forward, HostRewrite, Mirror, PathRewrite, Redirect, Target, WeightedCluster,
    WeightedClusters,
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
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
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
    harmless!(at; early_data_policy, rate_limits, include_vh_rate_limits, hash_policy, cors,
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
        host_rewrite_literal,
    } = wire;
    unsupported!(at; cluster_header, host_rewrite_literal);
    harmless!(at; trace_sampled, disable_shadow_host_suffix_append);
    Ok(Mirror {
        cluster: nonempty(&at.field("cluster"), cluster)?.into(),
        share: match fraction {
            Some(fraction) => runtime_fraction(&at.field("runtime_fraction"), fraction)?,
            None => Percent::ALL,
        },
    })
}

/// To another place.
pub(super) fn redirect(at: &At<'_>, wire: &RedirectAction) -> Result<Redirect, Invalid> {
    let RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = wire;
    let status = match enumeration(&at.field("response_code"), *response_code)? {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    let scheme = match scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.as_str().into()),
    };
    let port = u16::try_from(*port_redirect).map_err(|_| {
        at.field("port_redirect")
            .refuse(format_args!("{port_redirect} is no port"))
    })?;
    let path = match path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            Some(PathRewrite::Full(path.as_str().into()))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(PathRewrite::Prefix(prefix.as_str().into()))
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => Some(PathRewrite::Regex(
            substitution(&at.field("regex_rewrite"), rewrite)?,
        )),
        Some(PathRewriteSpecifier::PathRewrite(path)) => Some(PathRewrite::Full(
            literal(&at.field("path_rewrite"), path)?.into(),
        )),
    };
    Ok(Redirect {
        status,
        scheme,
        host: (!host_redirect.is_empty()).then(|| host_redirect.as_str().into()),
        port: (port != 0).then_some(port),
        path,
        strip_query: *strip_query,
    })
}

/// An answer given here.
pub(super) fn direct_response(
    at: &At<'_>,
    wire: &DirectResponseAction,
) -> Result<DirectResponse, Invalid> {
    let DirectResponseAction {
        status,
        body,
        body_format,
    } = wire;
    unsupported!(at; body_format);
    let at_status = at.field("status");
    let status = u16::try_from(*status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| at_status.refuse(format_args!("{status} is no status")))?;
    let body = match body {
        None => bytes::Bytes::new(),
        Some(source) => inline(&at.field("body"), source)?,
    };
    Ok(DirectResponse { status, body })
}

fn inline(at: &At<'_>, wire: &DataSource) -> Result<bytes::Bytes, Invalid> {
    let DataSource {
        watched_directory,
        specifier,
    } = wire;
    unsupported!(at; watched_directory);
    match required(&at.field("specifier"), specifier.as_ref())? {
        Specifier::InlineBytes(bytes) => Ok(bytes.clone()),
        Specifier::InlineString(text) => Ok(text.clone().into()),
        Specifier::Filename(path) => Err(at.field("filename").refuse_value(path)),
        Specifier::EnvironmentVariable(name) => {
            Err(at.field("environment_variable").refuse_value(name))
        }
    }
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

    #[test]
    fn a_direct_response_has_a_status_that_ends_a_request() {
        let notes = Notes::default();
        for status in [0, 100, 600, 65_736] {
            let wire = DirectResponseAction {
                status,
                ..DirectResponseAction::default()
            };
            assert!(
                direct_response(&At::root(&notes), &wire).is_err(),
                "{status}"
            );
        }
    }
}
