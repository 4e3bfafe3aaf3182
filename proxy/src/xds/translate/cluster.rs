//! CDS: clusters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, TransportSocketMatch,
};
use weft_proto::envoy::config::core::v3::{BindConfig, ExtraSourceAddress};
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::address::source_ip;
use super::at::{At, Invalid, duration, enumeration, harmless, nonempty, required, unsupported};
use super::balancer::balancer;
use super::cluster_http::{ClusterHttp, cluster_http};
use super::cluster_limits::{outlier_detection, thresholds};
use super::config_source::from_ads;
use super::endpoints::{Hosts, endpoints};
use super::metadata::{labels, network};
use super::share::percent;
use super::tls::upstream_transport;
use crate::config::cluster::{ClusterConfig, Discovery, Transport, TransportMatch};
use crate::config::endpoints::EndpointsConfig;
use crate::config::percent::Percent;

/// Envoy's.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's.
const DEFAULT_PANIC_PERCENT: u32 = 50;

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
        health_checks,
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
    } = wire;
    unsupported!(at; health_checks, upstream_http_protocol_options, dns_resolvers,
        use_tcp_for_dns_lookups, dns_resolution_config, lb_subset_config, filters, upstream_config,
        connection_pool_per_downstream_connection);
    harmless!(at; alt_stat_name, per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout, dns_refresh_rate, dns_jitter,
        dns_failure_refresh_rate, respect_dns_ttl, dns_lookup_family, typed_dns_resolver_config,
        wait_for_warm_on_init, cleanup_interval, upstream_connection_options,
        close_connections_on_host_health_failure, ignore_health_on_host_removal, lrs_server,
        lrs_report_endpoint_metrics, track_timeout_budgets, track_cluster_stats, preconnect_policy,
        queuing_policies);
    let ClusterHttp {
        protocol,
        http2,
        idle_timeout,
        max_requests,
    } = cluster_http(
        at,
        common_http_protocol_options.as_ref(),
        http_protocol_options.as_ref(),
        http2_protocol_options.as_ref(),
        *protocol_selection,
        typed_extension_protocol_options,
    )?;
    let at_transport = at.field("transport_socket");
    Ok(ClusterConfig {
        name: nonempty(&at.field("name"), name)?.into(),
        discovery: discovery(
            at,
            cluster_discovery_type.as_ref(),
            eds_cluster_config.as_ref(),
            load_assignment.as_ref(),
        )?,
        balancer: balancer(
            at,
            *lb_policy,
            lb_config.as_ref(),
            load_balancing_policy.as_ref(),
        )?,
        connect_timeout: duration(&at.field("connect_timeout"), connect_timeout.as_ref())?
            .unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        breakers: thresholds(&at.field("circuit_breakers"), circuit_breakers.as_ref())?,
        outlier_detection: outlier
            .as_ref()
            .map(|wire| outlier_detection(&at.field("outlier_detection"), wire))
            .transpose()?,
        panic_threshold: panic_threshold(&at.field("common_lb_config"), common_lb_config.as_ref())?,
        transport_matches: transport_matches(
            &at.field("transport_socket_matches"),
            transport_socket_matches,
        )?,
        transport: match transport_socket {
            Some(socket) => upstream_transport(&at_transport, socket)?,
            None => Transport::Plaintext,
        },
        protocol,
        http2,
        idle_timeout,
        max_requests_per_connection: max_requests_per_connection
            .filter(|max| *max > 0)
            .or(max_requests),
        source_addresses: source_addresses(
            &at.field("upstream_bind_config"),
            upstream_bind_config.as_ref(),
        )?
        .into_iter()
        .collect(),
        network: network(&at.field("metadata"), metadata.as_ref())?,
    })
}

fn discovery(
    at: &At<'_>,
    kind: Option<&ClusterDiscoveryType>,
    eds: Option<&EdsClusterConfig>,
    assignment: Option<&ClusterLoadAssignment>,
) -> Result<Discovery, Invalid> {
    let kind = match kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(number)) => enumeration(&at.field("type"), *number)?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(at.field("cluster_type").refuse_value(&custom.name));
        }
    };
    match kind {
        DiscoveryType::Static => given(at, assignment, Hosts::Addresses).map(Discovery::Static),
        DiscoveryType::StrictDns => given(at, assignment, Hosts::Names).map(Discovery::StrictDns),
        DiscoveryType::LogicalDns => {
            // One address at a time or all of them: which is a matter of balancing only.
            at.field("type").note();
            given(at, assignment, Hosts::Names).map(Discovery::StrictDns)
        }
        DiscoveryType::OriginalDst => Ok(Discovery::OriginalDestination),
        DiscoveryType::Eds => {
            let at = at.field("eds_cluster_config");
            let EdsClusterConfig {
                eds_config,
                service_name,
            } = required(&at, eds)?;
            from_ads(&at.field("eds_config"), eds_config.as_ref())?;
            let service_name = (!service_name.is_empty()).then(|| service_name.as_str().into());
            Ok(Discovery::Eds { service_name })
        }
    }
}

fn given(
    at: &At<'_>,
    assignment: Option<&ClusterLoadAssignment>,
    hosts: Hosts,
) -> Result<Arc<EndpointsConfig>, Invalid> {
    let at = at.field("load_assignment");
    endpoints(&at, required(&at, assignment)?, hosts).map(Arc::new)
}

fn panic_threshold(at: &At<'_>, wire: Option<&CommonLbConfig>) -> Result<Percent, Invalid> {
    let default = Percent::of(DEFAULT_PANIC_PERCENT);
    let Some(wire) = wire else {
        return Ok(default);
    };
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = wire;
    harmless!(at; update_merge_window, ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change, consistent_hashing_lb_config, override_host_status,
        locality_config_specifier);
    let at = at.field("healthy_panic_threshold");
    healthy_panic_threshold
        .as_ref()
        .map_or(Ok(default), |wire| percent(&at, wire))
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

/// The first of an endpoint's address family is used.
fn source_addresses(at: &At<'_>, wire: Option<&BindConfig>) -> Result<Vec<IpAddr>, Invalid> {
    let Some(wire) = wire else {
        return Ok(vec![]);
    };
    let BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = wire;
    unsupported!(at; freebind, socket_options, local_address_selector);
    harmless!(at; validate_network_namespaces);
    let mut addresses = Vec::new();
    if let Some(wire) = source_address {
        addresses.push(source_ip(&at.field("source_address"), wire)?);
    }
    let at_additional = at.field("additional_source_addresses");
    for (index, wire) in additional_source_addresses.iter().enumerate() {
        addresses.push(source_ip(&at_additional.index(index), wire)?);
    }
    let at_extra = at.field("extra_source_addresses");
    for (index, wire) in extra_source_addresses.iter().enumerate() {
        let at = at_extra.index(index);
        let ExtraSourceAddress {
            address,
            socket_options,
        } = wire;
        unsupported!(at; socket_options);
        let at = at.field("address");
        addresses.push(source_ip(&at, required(&at, address.as_ref())?)?);
    }
    Ok(addresses)
}
