//! The network filter that proxies bytes.

use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use weft_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster as WireWeighted, weighted_cluster::ClusterWeight,
};

use weft_proto::envoy::r#type::v3::HashPolicy;
use weft_proto::envoy::r#type::v3::hash_policy::PolicySpecifier;

use super::access_log::access_logs;
use super::at::{At, Invalid, harmless, limit, nonempty, required, unsupported};
use super::route_weighted::both;
use super::share::percent;
use super::subsets::asked;
use super::tcp_tunnel::tunnel;
use crate::config::balancing::Criteria;
use crate::config::http::DEFAULT_BUFFER_BYTES;
use crate::config::listener::{TcpConfig, TcpTarget};
use crate::config::percent::Percent;
use crate::config::route::{WeightedCluster, WeightedClusters};

/// Envoy's: a connection may be silent for an hour.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Where bytes go.
pub(super) fn tcp_proxy(at: &At<'_>, wire: &TcpProxy) -> Result<TcpConfig, Invalid> {
    let TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = wire;
    unsupported!(at; on_demand, proxy_protocol_tlvs);
    // The upstream is always dialled at once.
    harmless!(at; downstream_idle_timeout, upstream_idle_timeout, max_connect_attempts, backoff_options,
        access_log_flush_interval, flush_access_log_on_connected, access_log_options, proxy_protocol_tlv_merge_policy,
        upstream_connect_mode, max_early_data_bytes, check_drain_close);
    let subset = asked(metadata_match.as_ref());
    let at_longest = at.field("max_downstream_connection_duration");
    let at_jitter = at.field("max_downstream_connection_duration_jitter_percentage");
    let jitter = max_downstream_connection_duration_jitter_percentage.as_ref();
    let jitter = jitter.map_or(Ok(Percent::ZERO), |wire| percent(&at_jitter, wire))?;
    let longest = limit(
        &at_longest,
        max_downstream_connection_duration.as_ref(),
        None,
    )?;
    Ok(TcpConfig {
        longest: longest.map(|longest| (longest, jitter)),
        stat_prefix: nonempty(&at.field("stat_prefix"), stat_prefix)?.into(),
        target: target(at, cluster_specifier.as_ref(), subset.as_ref())?,
        subset,
        hashes_source: hashes_source(&at.field("hash_policy"), hash_policy)?,
        // The listener says.
        buffer_bytes: DEFAULT_BUFFER_BYTES,
        tunnel: tunneling_config
            .as_ref()
            .map(|wire| tunnel(&at.field("tunneling_config"), wire).map(Arc::new))
            .transpose()?,
        idle_timeout: limit(
            &at.field("idle_timeout"),
            idle_timeout.as_ref(),
            Some(DEFAULT_IDLE_TIMEOUT),
        )?,
        access_logs: access_logs(&at.field("access_log"), access_log)?,
    })
}

/// Whether the client's address is hashed.
fn hashes_source(at: &At<'_>, wire: &[HashPolicy]) -> Result<bool, Invalid> {
    let mut hashes_source = false;
    for (index, HashPolicy { policy_specifier }) in wire.iter().enumerate() {
        let at = at.index(index);
        match required(&at.field("policy_specifier"), policy_specifier.as_ref())? {
            PolicySpecifier::SourceIp(_) => hashes_source = true,
            PolicySpecifier::FilterState(wire) => {
                return Err(at
                    .field("filter_state")
                    .field("key")
                    .refuse_value(&wire.key));
            }
        }
    }
    Ok(hashes_source)
}

fn target(
    at: &At<'_>,
    wire: Option<&ClusterSpecifier>,
    subset: Option<&Arc<Criteria>>,
) -> Result<TcpTarget, Invalid> {
    Ok(match required(&at.field("cluster_specifier"), wire)? {
        ClusterSpecifier::Cluster(cluster) => {
            TcpTarget::Cluster(nonempty(&at.field("cluster"), cluster)?.into())
        }
        ClusterSpecifier::WeightedClusters(clusters) => {
            TcpTarget::Weighted(weighted(&at.field("weighted_clusters"), clusters, subset)?)
        }
    })
}

fn weighted(
    at: &At<'_>,
    wire: &WireWeighted,
    subset: Option<&Arc<Criteria>>,
) -> Result<WeightedClusters, Invalid> {
    let WireWeighted { clusters } = wire;
    let at = at.field("clusters");
    let clusters = clusters
        .iter()
        .enumerate()
        .map(|(index, wire)| {
            let at = at.index(index);
            let ClusterWeight {
                name,
                weight,
                metadata_match,
            } = wire;
            let name = nonempty(&at.field("name"), name)?;
            Ok(WeightedCluster {
                subset: both(subset, asked(metadata_match.as_ref())),
                ..WeightedCluster::new(name, *weight)
            })
        })
        .collect::<Result<_, _>>()?;
    WeightedClusters::new(clusters)
        .ok_or_else(|| at.refuse("weights sum to nothing or to too much"))
}
