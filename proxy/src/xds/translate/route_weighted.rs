//! Clusters that share the requests of a route.

use std::sync::Arc;

use weft_proto::envoy::config::route::v3::WeightedCluster as WireWeighted;
use weft_proto::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier;
use weft_proto::envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};

use super::at::{At, Invalid, harmless, required};
use super::filter::overrides::overrides;
use super::headers::formatted_mutations;
use super::route_hosts::host_value;
use super::route_mirror::cluster_name;
use super::subsets::asked;
use super::text::header_name;
use crate::config::balancing::Criteria;
use crate::config::route::{WeightedCluster, WeightedClusters};

/// Clusters and their shares.
pub(super) fn weighted(
    at: &At<'_>,
    wire: &WireWeighted,
    of_route: Option<&Arc<Criteria>>,
) -> Result<WeightedClusters, Invalid> {
    let WireWeighted {
        clusters,
        runtime_key_prefix,
        total_weight,
        random_value_specifier,
    } = wire;
    // Envoy adds the weights up, too, whatever is said of their sum.
    harmless!(at; runtime_key_prefix, total_weight);
    let at_clusters = at.field("clusters");
    let translated = clusters
        .iter()
        .enumerate()
        .map(|(index, cluster)| cluster_weight(&at_clusters.index(index), cluster, of_route))
        .collect::<Result<_, _>>()?;
    let weighted = WeightedClusters::new(translated)
        .ok_or_else(|| at_clusters.refuse("weights sum to nothing or to too much"))?;
    match random_value_specifier {
        None | Some(RandomValueSpecifier::UseHashPolicy(false)) => Ok(weighted),
        Some(RandomValueSpecifier::HeaderName(name)) => {
            Ok(weighted.drawn_by(header_name(&at.field("header_name"), name)?))
        }
        Some(RandomValueSpecifier::UseHashPolicy(true)) => {
            Err(at.field("use_hash_policy").refuse_value(true))
        }
    }
}

fn cluster_weight(
    at: &At<'_>,
    wire: &ClusterWeight,
    of_route: Option<&Arc<Criteria>>,
) -> Result<WeightedCluster, Invalid> {
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
    Ok(WeightedCluster {
        target: cluster_name(at, ("name", name), cluster_header)?,
        weight: *required(&at.field("weight"), weight.as_ref())?,
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
        filters: overrides(
            &at.field("typed_per_filter_config"),
            typed_per_filter_config,
        )?,
        host: match host_rewrite_specifier {
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                Some(host_value(&at.field("host_rewrite_literal"), host)?)
            }
            None => None,
        },
        subset: both(of_route, asked(metadata_match.as_ref())),
    })
}

/// What the route asks for, and the cluster in place of it where both name the same label.
pub(super) fn both(
    of_route: Option<&Arc<Criteria>>,
    own: Option<Arc<Criteria>>,
) -> Option<Arc<Criteria>> {
    match (of_route, own) {
        (Some(of_route), Some(own)) => Some(Arc::new(of_route.merged(&own))),
        (None, own) => own,
        (of_route, None) => of_route.cloned(),
    }
}
