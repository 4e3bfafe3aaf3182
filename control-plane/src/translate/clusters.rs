//! CDS: for each port of each service, how its endpoints are called; and the few clusters every sidecar has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use weft_proto::envoy::config::cluster::v3 as cluster;
use weft_proto::envoy::config::core::v3 as core;
use weft_proto::envoy::config::endpoint::v3 as endpoint;
use weft_proto::envoy::extensions::upstreams::http::v3 as http;
use weft_proto::{any, names, wkt};

use crate::kinds::backend_traffic_policy::{LoadBalancerType, SlowStart};
use crate::mesh::Mesh;
use crate::mesh::policies::Applicable;
use crate::mesh::services::{Outbound, Port, Service};

use super::{endpoints, tls, wire};

mod limits;

/// Out of the mesh.
pub(super) const PASSTHROUGH: &str = "passthrough";
/// To the pod's own application, wherever the caller wanted to go.
pub(super) const INBOUND: &str = "inbound";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster of one port of a service.
pub(super) fn of_service(mesh: &Mesh, service: &Service, port: &Port) -> cluster::Cluster {
    let policies = mesh.policies.of_service(&service.name, port);
    let name = Outbound {
        service: &service.name,
        port: port.number,
    };
    let connect_timeout = policies.first(|policy| policy.timeout?.tcp?.connect_timeout);
    let mut cluster = cluster::Cluster {
        name: name.to_string(),
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::Eds),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(wire::ads()),
            ..cluster::cluster::EdsClusterConfig::default()
        }),
        connect_timeout: Some(wkt::to_wire(
            connect_timeout.map_or(CONNECT_TIMEOUT, Duration::from),
        )),
        metadata: wire::sharing(mesh.settings.sharing),
        transport_socket_matches: transport_sockets(mesh, service),
        circuit_breakers: Some(limits::circuit_breakers(
            policies.first(|policy| policy.circuit_breaker),
        )),
        outlier_detection: policies
            .first(|policy| policy.passive_health_check())
            .map(limits::outlier_detection),
        common_lb_config: limits::panic_threshold(&policies),
        typed_extension_protocol_options: http_options(&policies),
        ..cluster::Cluster::default()
    };
    balance(&mut cluster, &policies);
    cluster
}

/// Where connections go whose destination is no service: there, dialled in the host's network.
pub(super) fn passthrough() -> cluster::Cluster {
    cluster::Cluster {
        metadata: Some(wire::host_network()),
        ..original_destination(PASSTHROUGH)
    }
}

/// The application beside the sidecar, at the address that the caller wanted.
pub(super) fn inbound() -> cluster::Cluster {
    cluster::Cluster {
        upstream_bind_config: Some(inbound_source()),
        typed_extension_protocol_options: http_options(&Applicable::default()),
        ..original_destination(INBOUND)
    }
}

/// The name of the cluster that leads to one port of the pod's own application.
pub(super) fn inbound_port_name(port: u16) -> String {
    format!("{INBOUND}|{port}")
}

/// One port of the application beside the sidecar.
pub(super) fn inbound_port(address: IpAddr, port: u16) -> cluster::Cluster {
    let name = inbound_port_name(port);
    cluster::Cluster {
        upstream_bind_config: Some(inbound_source()),
        typed_extension_protocol_options: http_options(&Applicable::default()),
        ..fixed(
            &name,
            cluster::cluster::DiscoveryType::Static,
            wire::address_of(address, port),
        )
    }
}

/// A cluster of one address that never changes.
pub(super) fn fixed(
    name: &str,
    kind: cluster::cluster::DiscoveryType,
    address: core::Address,
) -> cluster::Cluster {
    let only = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
            endpoint::Endpoint {
                address: Some(address),
                ..endpoint::Endpoint::default()
            },
        )),
        ..endpoint::LbEndpoint::default()
    };
    cluster::Cluster {
        name: name.to_owned(),
        cluster_discovery_type: discovery(kind),
        connect_timeout: Some(wkt::to_wire(CONNECT_TIMEOUT)),
        load_assignment: Some(endpoint::ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![endpoint::LocalityLbEndpoints {
                lb_endpoints: vec![only],
                ..endpoint::LocalityLbEndpoints::default()
            }],
            ..endpoint::ClusterLoadAssignment::default()
        }),
        ..cluster::Cluster::default()
    }
}

fn original_destination(name: &str) -> cluster::Cluster {
    cluster::Cluster {
        name: name.to_owned(),
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::OriginalDst),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
        connect_timeout: Some(wkt::to_wire(CONNECT_TIMEOUT)),
        ..cluster::Cluster::default()
    }
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "the field is optional on the wire"
)]
fn discovery(
    kind: cluster::cluster::DiscoveryType,
) -> Option<cluster::cluster::ClusterDiscoveryType> {
    Some(cluster::cluster::ClusterDiscoveryType::Type(kind.into()))
}

/// By its source address the sidecar's own connection to the application is told from redirected ones.
fn inbound_source() -> core::BindConfig {
    let source = |ip: IpAddr| wire::socket_address(SocketAddr::new(ip, 0));
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (names::INBOUND_SOURCE_IPV4, names::INBOUND_SOURCE_IPV6);
    core::BindConfig {
        source_address: Some(source(v4.into())),
        extra_source_addresses: vec![core::ExtraSourceAddress {
            address: Some(source(v6.into())),
            ..core::ExtraSourceAddress::default()
        }],
        ..core::BindConfig::default()
    }
}

fn transport_sockets(
    mesh: &Mesh,
    service: &Service,
) -> Vec<cluster::cluster::TransportSocketMatch> {
    let identities = identities(mesh, service);
    vec![
        cluster::cluster::TransportSocketMatch {
            name: endpoints::MUTUAL.to_owned(),
            r#match: Some(wire::text_struct(&[(
                endpoints::TLS_MODE,
                endpoints::MUTUAL,
            )])),
            transport_socket: Some(tls::upstream(identities.iter().map(String::as_str))),
        },
        cluster::cluster::TransportSocketMatch {
            name: "plaintext".to_owned(),
            r#match: Some(prost_types::Struct::default()),
            transport_socket: Some(tls::plaintext()),
        },
    ]
}

/// Who the pods behind a service are. Never empty, because an empty list means anybody: a service without
/// pods gets the name of nobody.
fn identities(mesh: &Mesh, service: &Service) -> BTreeSet<String> {
    let trust_domain = &mesh.settings.trust_domain;
    let mut identities: BTreeSet<_> = mesh
        .members(service)
        .filter_map(|pod| pod.identity(trust_domain).ok())
        .map(|identity| identity.to_string())
        .collect();
    if identities.is_empty() {
        identities.insert(format!("spiffe://{trust_domain}/nobody"));
    }
    identities
}

/// HTTP keeps the version that its caller spoke.
fn http_options(policies: &Applicable<'_>) -> BTreeMap<String, weft_proto::Any> {
    use http::http_protocol_options::{UpstreamProtocolOptions, UseDownstreamHttpConfig};

    let idle_timeout = policies.first(|policy| policy.timeout?.http?.connection_idle_timeout);
    let max_requests = policies.first(|policy| policy.circuit_breaker?.max_requests_per_connection);
    let has_limits = idle_timeout.is_some() || max_requests.is_some();
    let common = core::HttpProtocolOptions {
        idle_timeout: idle_timeout.map(|timeout| wkt::to_wire(timeout.into())),
        max_requests_per_connection: max_requests,
        ..core::HttpProtocolOptions::default()
    };
    let options = http::HttpProtocolOptions {
        common_http_protocol_options: has_limits.then_some(common),
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            UseDownstreamHttpConfig {
                http_protocol_options: Some(core::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
            },
        )),
        ..http::HttpProtocolOptions::default()
    };
    BTreeMap::from([(HTTP_OPTIONS.to_owned(), any::pack(&options))])
}

fn balance(cluster: &mut cluster::Cluster, policies: &Applicable<'_>) {
    use cluster::cluster::{
        LbConfig, LbPolicy, LeastRequestLbConfig, RoundRobinLbConfig, SlowStartConfig,
    };

    let policy = policies.first(|policy| policy.load_balancer.as_ref());
    let slow_start = policy
        .and_then(|policy| policy.slow_start)
        .map(|SlowStart { window }| SlowStartConfig {
            slow_start_window: Some(wkt::to_wire(window.into())),
            ..SlowStartConfig::default()
        });
    let (lb_policy, lb_config) = match policy.map(|policy| policy.kind).unwrap_or_default() {
        LoadBalancerType::LeastRequest => (
            LbPolicy::LeastRequest,
            slow_start.map(|slow_start| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..LeastRequestLbConfig::default()
                })
            }),
        ),
        LoadBalancerType::RoundRobin => (
            LbPolicy::RoundRobin,
            slow_start.map(|slow_start| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
                    slow_start_config: Some(slow_start),
                })
            }),
        ),
        LoadBalancerType::Random => (LbPolicy::Random, None),
    };
    cluster.lb_policy = lb_policy.into();
    cluster.lb_config = lb_config;
}
