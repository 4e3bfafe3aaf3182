//! CDS: clusters.

use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    ConsistentHashingLbConfig, LocalityConfigSpecifier, ZoneAwareLbConfig,
};
use weft_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
    LbConfig, LbPolicy, OriginalDstLbConfig, RefreshRate, TransportSocketMatch,
};
use weft_proto::envoy::config::core::v3::{HealthStatus, HealthStatusSet};
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::at::{At, Invalid, duration, enumeration, harmless, nonempty, required, unsupported};
use super::balancer::{Balancing, older};
use super::cluster_http::{ClusterHttp, cluster_http};
use super::cluster_limits::{outlier_detection, thresholds};
use super::config_source::needs;
use super::endpoints::{Hosts, endpoints};
use super::health_checks::health_checks;
use super::metadata::{labels, network};
use super::policies::{balance_factor, newer};
use super::preconnect::preconnect;
use super::proxied_transport::announced;
use super::share::percent;
use super::subsets::older_subsets;
use super::text::header_name;
use super::tls::upstream_transport;
use super::upstream_socket::{keepalive, sources};
use super::zones::zones;
use crate::config::balancing::{Hashing, Localities};
use crate::config::cluster::{
    ClusterConfig, Discovery, DnsFamily, DnsOptions, OriginalDestinationOptions, OverrideStandings,
    TransportMatch,
};
use crate::config::endpoints::EndpointsConfig;
use crate::config::percent::Percent;
use crate::xds::kind::Kind;

/// Envoy's.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's.
const DEFAULT_PANIC_PERCENT: u32 = 50;
/// Envoy's.
const DEFAULT_DNS_REFRESH: Duration = Duration::from_secs(5);
/// Envoy's.
const ORIGINAL_DST_HEADER: &str = "x-envoy-original-dst-host";

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
    harmless!(at; stats_matcher, alt_stat_name, per_connection_buffer_limit_bytes,
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
    } = cluster_http(
        at,
        common_http_protocol_options.as_ref(),
        http_protocol_options.as_ref(),
        http2_protocol_options.as_ref(),
        *protocol_selection,
        typed_extension_protocol_options,
    )?;
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
        sources: sources(
            &at.field("upstream_bind_config"),
            upstream_bind_config.as_ref(),
        )?,
        keepalive: keepalive(
            &at.field("upstream_connection_options"),
            upstream_connection_options.as_ref(),
        ),
        network: network(&at.field("metadata"), metadata.as_ref())?,
    })
}

fn discovery(
    at: &At<'_>,
    name: &str,
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
            let given = given(at, assignment, Hosts::Names)?;
            let count: usize = given
                .localities
                .iter()
                .map(|each| each.endpoints.len())
                .sum();
            match count {
                1 => Ok(Discovery::LogicalDns(given)),
                _ => Err(at
                    .field("load_assignment")
                    .refuse("a cluster of type LOGICAL_DNS has one locality with one endpoint")),
            }
        }
        DiscoveryType::OriginalDst => Ok(Discovery::OriginalDestination),
        DiscoveryType::Eds => {
            let at = at.field("eds_cluster_config");
            let EdsClusterConfig {
                eds_config,
                service_name,
            } = required(&at, eds)?;
            let named = match service_name.is_empty() {
                true => name,
                false => service_name,
            };
            needs(
                &at.field("eds_config"),
                Kind::Endpoints,
                named,
                eds_config.as_ref(),
            )?;
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

/// What `common_lb_config` says, and the policy does not.
struct Common {
    panic_threshold: Percent,
    override_standings: OverrideStandings,
}

fn common_lb(
    at: &At<'_>,
    wire: Option<&CommonLbConfig>,
    balancing: &mut Balancing,
) -> Result<Common, Invalid> {
    let default = Percent::of(DEFAULT_PANIC_PERCENT);
    let Some(wire) = wire else {
        return Ok(Common {
            panic_threshold: default,
            override_standings: OverrideStandings::default(),
        });
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
    unsupported!(at; close_connections_on_host_set_change);
    // Endpoints that have not been checked yet are not counted on in either case.
    harmless!(at; update_merge_window, ignore_new_hosts_until_first_hc);
    if let Some(ConsistentHashingLbConfig {
        use_hostname_for_hashing,
        hash_balance_factor,
    }) = consistent_hashing_lb_config
    {
        let at = at.field("consistent_hashing_lb_config");
        balancing.hashing = Hashing {
            by_hostname: *use_hostname_for_hashing,
            balance_factor: balance_factor(&at.field("hash_balance_factor"), *hash_balance_factor)?,
        };
    }
    match locality_config_specifier {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            balancing.localities = Localities::Weighted;
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(wire)) => {
            let at = at.field("zone_aware_lb_config");
            let ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
            } = wire;
            balancing.zones = zones(&at, routing_enabled.as_ref(), *min_cluster_size)?;
            balancing.fails_on_panic |= *fail_traffic_on_panic;
        }
    }
    let at_threshold = at.field("healthy_panic_threshold");
    Ok(Common {
        panic_threshold: healthy_panic_threshold
            .as_ref()
            .map_or(Ok(default), |wire| percent(&at_threshold, wire))?,
        override_standings: override_host_status
            .as_ref()
            .map_or(Ok(OverrideStandings::default()), |wire| {
                override_standings(&at.field("override_host_status"), wire)
            })?,
    })
}

fn override_standings(at: &At<'_>, wire: &HealthStatusSet) -> Result<OverrideStandings, Invalid> {
    let HealthStatusSet { statuses } = wire;
    let mut allowed = OverrideStandings {
        healthy: false,
        degraded: false,
        unhealthy: false,
        draining: false,
    };
    for status in statuses {
        match enumeration(&at.field("statuses"), *status)? {
            HealthStatus::Unknown | HealthStatus::Healthy => allowed.healthy = true,
            HealthStatus::Degraded => allowed.degraded = true,
            HealthStatus::Unhealthy | HealthStatus::Timeout => allowed.unhealthy = true,
            HealthStatus::Draining => allowed.draining = true,
        }
    }
    Ok(allowed)
}

/// Envoy: an original destination is not balanced.
fn check_original_policy(at: &At<'_>, policy: i32) -> Result<(), Invalid> {
    let at = at.field("lb_policy");
    match enumeration(&at, policy)? {
        LbPolicy::ClusterProvided => Ok(()),
        // The default, where nobody has said anything.
        LbPolicy::RoundRobin => Ok(()),
        other => Err(at.refuse(format_args!(
            "{other:?} is not possible: a cluster of type ORIGINAL_DST takes CLUSTER_PROVIDED"
        ))),
    }
}

fn original(
    at: &At<'_>,
    wire: Option<&LbConfig>,
    cleanup: Option<Duration>,
) -> Result<OriginalDestinationOptions, Invalid> {
    let Some(LbConfig::OriginalDstLbConfig(wire)) = wire else {
        return Ok(OriginalDestinationOptions {
            cleanup,
            ..OriginalDestinationOptions::default()
        });
    };
    let OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = wire;
    unsupported!(at; metadata_key);
    let header = match (use_http_header, http_header_name.as_str()) {
        (false, _) => None,
        (true, "") => Some(http::HeaderName::from_static(ORIGINAL_DST_HEADER)),
        (true, name) => Some(header_name(&at.field("http_header_name"), name)?),
    };
    let at_port = at.field("upstream_port_override");
    let port = upstream_port_override
        .map(|port| {
            u16::try_from(port).map_err(|_| at_port.refuse(format_args!("{port} is no port")))
        })
        .transpose()?;
    Ok(OriginalDestinationOptions {
        header,
        port,
        cleanup,
    })
}

fn positive(
    at: &At<'_>,
    wire: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, Invalid> {
    match duration(at, wire)? {
        Some(found) if found < Duration::from_millis(1) => {
            Err(at.refuse("must be a millisecond at least"))
        }
        found => Ok(found),
    }
}

fn failure_refresh(
    at: &At<'_>,
    wire: Option<&RefreshRate>,
) -> Result<Option<(Duration, Duration)>, Invalid> {
    let Some(RefreshRate {
        base_interval,
        max_interval,
    }) = wire
    else {
        return Ok(None);
    };
    let at_base = at.field("base_interval");
    let base = positive(&at_base, base_interval.as_ref())?;
    let base = *required(&at_base, base.as_ref())?;
    let at_max = at.field("max_interval");
    let max = positive(&at_max, max_interval.as_ref())?.unwrap_or(base.saturating_mul(10));
    if max < base {
        return Err(at_max.refuse("shorter than the base interval"));
    }
    Ok(Some((base, max)))
}

fn dns_family(at: &At<'_>, wire: i32) -> Result<DnsFamily, Invalid> {
    Ok(match enumeration(at, wire)? {
        DnsLookupFamily::Auto => DnsFamily::PreferV6,
        DnsLookupFamily::V4Only => DnsFamily::V4,
        DnsLookupFamily::V6Only => DnsFamily::V6,
        DnsLookupFamily::V4Preferred => DnsFamily::PreferV4,
        DnsLookupFamily::All => DnsFamily::All,
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
