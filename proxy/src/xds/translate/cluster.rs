//! CDS: clusters.

use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, TransportSocketMatch,
};

use super::at::{At, Invalid, duration, harmless, nonempty, required, unsupported};
use super::balancer::older;
use super::cluster_discovery::{
    DEFAULT_DNS_REFRESH, check_original_policy, discovery, dns_family, failure_refresh, original,
    positive,
};
use super::cluster_http::{ClusterHttp, cluster_http};
use super::cluster_limits::{outlier_detection, thresholds};
use super::common_lb::{Common, common_lb};
use super::health_checks::health_checks;
use super::listener::buffer_bytes;
use super::metadata::{labels, network, sharing};
use super::policies::newer;
use super::preconnect::preconnect;
use super::proxied_transport::announced;
use super::subsets::older_subsets;
use super::tls::upstream_transport;
use super::upstream_socket::{keepalive, sources};
use crate::config::cluster::{ClusterConfig, ConnectionBounds, DnsOptions, TransportMatch};
use crate::config::http::DEFAULT_BUFFER_BYTES;

/// Envoy's.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster.
pub(super) fn cluster(at: &At<'_>, wire: &Cluster) -> Result<ClusterConfig, Invalid> {
    let Cluster {
        transport_socket_matches,
        name,
        alt_stat_name,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks: health_checks_wire,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection: outlier,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
        stats_matcher,
    } = wire;
    unsupported!(at; upstream_http_protocol_options, dns_resolvers,
        use_tcp_for_dns_lookups, dns_resolution_config, filters, upstream_config,
        connection_pool_per_downstream_connection);
    harmless!(at; stats_matcher,
        per_connection_buffer_high_watermark_timeout, typed_dns_resolver_config,
        wait_for_warm_on_init, lrs_server,
        lrs_report_endpoint_metrics, track_timeout_budgets, track_cluster_stats, queuing_policies);
    let ClusterHttp {
        protocol,
        http1,
        http2,
        idle_timeout,
        max_requests,
        max_connection_duration,
        max_headers,
        max_header_bytes,
    } = cluster_http(
        at,
        common_http_protocol_options.as_ref(),
        http_protocol_options.as_ref(),
        http2_protocol_options.as_ref(),
        *protocol_selection,
        typed_extension_protocol_options,
    )?;
    let buffered = buffer_bytes(*per_connection_buffer_limit_bytes);
    let mut http2 = http2;
    if let Some(bytes) = buffered {
        http2.bound(bytes);
    }
    let at_transport = at.field("transport_socket");
    let mut balancing = match load_balancing_policy {
        Some(wire) => newer(&at.field("load_balancing_policy"), wire)?,
        None => older(at, *lb_policy, lb_config.as_ref())?,
    };
    if load_balancing_policy.is_none()
        && let Some(wire) = lb_subset_config
    {
        balancing.subsets = older_subsets(&at.field("lb_subset_config"), wire)?;
    }
    let Common {
        panic_threshold,
        override_standings,
    } = common_lb(
        &at.field("common_lb_config"),
        common_lb_config.as_ref(),
        &mut balancing,
    )?;
    let preconnect = preconnect(&at.field("preconnect_policy"), preconnect_policy.as_ref())?;
    let limits = thresholds(&at.field("circuit_breakers"), circuit_breakers.as_ref())?;
    let is_original = matches!(
        cluster_discovery_type,
        Some(ClusterDiscoveryType::Type(kind)) if *kind == i32::from(DiscoveryType::OriginalDst)
    );
    if is_original && load_balancing_policy.is_none() {
        check_original_policy(at, *lb_policy)?;
    }
    let announced = announced(&at_transport, transport_socket.as_ref())?;
    if announced.version.is_some() && !transport_socket_matches.is_empty() {
        return Err(at_transport
            .refuse("a PROXY header is not supported beside `transport_socket_matches`"));
    }
    Ok(ClusterConfig {
        name: nonempty(&at.field("name"), name)?.into(),
        stat_name: (!alt_stat_name.is_empty()).then(|| alt_stat_name.as_str().into()),
        discovery: discovery(
            at,
            name,
            cluster_discovery_type.as_ref(),
            eds_cluster_config.as_ref(),
            load_assignment.as_ref(),
        )?,
        balancer: balancing.balancer,
        hashing: balancing.hashing,
        slow_start: balancing.slow_start.filter(|each| !each.window.is_zero()),
        localities: balancing.localities,
        zones: balancing.zones,
        subsets: balancing.subsets.map(Arc::new),
        fails_on_panic: balancing.fails_on_panic,
        health_checks: health_checks(&at.field("health_checks"), health_checks_wire)?,
        close_on_health_failure: *close_connections_on_host_health_failure,
        ignore_health_on_removal: *ignore_health_on_host_removal,
        override_standings,
        dns: DnsOptions {
            refresh: positive(&at.field("dns_refresh_rate"), dns_refresh_rate.as_ref())?
                .unwrap_or(DEFAULT_DNS_REFRESH),
            respects_ttl: *respect_dns_ttl,
            failure_refresh: failure_refresh(
                &at.field("dns_failure_refresh_rate"),
                dns_failure_refresh_rate.as_ref(),
            )?,
            jitter: duration(&at.field("dns_jitter"), dns_jitter.as_ref())?.unwrap_or_default(),
            family: dns_family(&at.field("dns_lookup_family"), *dns_lookup_family)?,
        },
        original: original(
            &at.field("original_dst_lb_config"),
            lb_config.as_ref(),
            duration(&at.field("cleanup_interval"), cleanup_interval.as_ref())?,
        )?,
        connect_timeout: duration(&at.field("connect_timeout"), connect_timeout.as_ref())?
            .unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        breakers: limits.usual,
        urgent_breakers: limits.urgent,
        max_connections_per_endpoint: limits.per_endpoint,
        outlier_detection: outlier
            .as_ref()
            .map(|wire| outlier_detection(&at.field("outlier_detection"), wire))
            .transpose()?,
        panic_threshold,
        transport_matches: transport_matches(
            &at.field("transport_socket_matches"),
            transport_socket_matches,
        )?,
        transport: announced.transport,
        proxy_protocol: announced.version,
        protocol,
        http1,
        http2,
        idle_timeout,
        max_requests_per_connection: max_requests_per_connection
            .filter(|max| *max > 0)
            .or(max_requests),
        max_connection_duration,
        preconnect_ratio: preconnect.per_upstream,
        predictive_preconnect_ratio: preconnect.predictive,
        bounds: ConnectionBounds {
            max_headers,
            max_header_bytes,
            buffer_bytes: buffered.unwrap_or(DEFAULT_BUFFER_BYTES),
        },
        sources: sources(
            &at.field("upstream_bind_config"),
            upstream_bind_config.as_ref(),
        )?,
        keepalive: keepalive(
            &at.field("upstream_connection_options"),
            upstream_connection_options.as_ref(),
        ),
        network: network(&at.field("metadata"), metadata.as_ref())?,
        sharing: sharing(&at.field("metadata"), metadata.as_ref())?,
    })
}

fn transport_matches(
    at: &At<'_>,
    wire: &[TransportSocketMatch],
) -> Result<Vec<TransportMatch>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| {
            let at = at.index(index);
            let TransportSocketMatch {
                name,
                r#match,
                transport_socket,
            } = wire;
            let at_socket = at.field("transport_socket");
            Ok(TransportMatch {
                name: name.as_str().into(),
                labels: r#match
                    .as_ref()
                    .map(|wire| labels(&at.field("match"), wire))
                    .transpose()?
                    .unwrap_or_default(),
                transport: upstream_transport(
                    &at_socket,
                    required(&at_socket, transport_socket.as_ref())?,
                )?,
            })
        })
        .collect()
}
