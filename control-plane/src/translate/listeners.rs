//! LDS: where redirected connections arrive, and what is done with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use weft_proto::envoy::config::core::v3 as core;
use weft_proto::envoy::config::listener::v3 as listener;
use weft_proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use weft_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use weft_proto::{any, names, wkt};

use crate::kinds::peer_authentication::MutualTlsMode;
use crate::mesh::pods::PublishedPort;
use crate::mesh::services::{Outbound, Port, Protocol, Service};

use super::http::{self, Side};
use super::telemetry::Reporting;
use super::{clusters, tls, wire};

const OUTBOUND: &str = "outbound";
const INBOUND: &str = "inbound";
/// What an inspector calls HTTP in plaintext. HTTP/1.0 is not among it: it goes through as bytes.
const PLAINTEXT_HTTP: [&str; 2] = ["http/1.1", "h2c"];
/// What sidecars agree on when they speak HTTP to each other.
const MUTUAL_HTTP: [&str; 2] = [names::ALPN_HTTP2, names::ALPN_HTTP1];
/// For proxies that listen before they dial: how long a client may keep silent before it is taken for one of a
/// protocol in which the server speaks first.
const DETECTION_TIMEOUT: Duration = Duration::from_millis(500);

/// Everything the application sends; hands each connection to the listener of the service it is for.
pub(super) fn outbound(reporting: &Reporting) -> listener::Listener {
    let passthrough = http::tcp_proxy(clusters::PASSTHROUGH, clusters::PASSTHROUGH, reporting);
    listener::Listener {
        use_original_dst: Some(true),
        default_filter_chain: Some(chain("passthrough", vec![passthrough])),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        ..any_address(OUTBOUND, names::OUTBOUND_PORT)
    }
}

/// What the application sends to one port of a service; none for a headless service.
pub(super) fn of_service(
    service: &Service,
    port: &Port,
    reporting: &Reporting,
) -> Option<listener::Listener> {
    let name = Outbound {
        service: &service.name,
        port: port.number,
    }
    .to_string();
    let (first, others) = service.addresses.split_first()?;
    let http = || vec![http::by_route_table(&name, reporting)];
    let tcp = || vec![http::tcp_proxy(&name, &name, reporting)];
    let base = listener::Listener {
        address: Some(wire::address_of(*first, port.number)),
        additional_addresses: others
            .iter()
            .map(|address| additional(wire::address_of(*address, port.number)))
            .collect(),
        bind_to_port: Some(false),
        traffic_direction: core::TrafficDirection::Outbound.into(),
        name: name.clone(),
        ..listener::Listener::default()
    };
    Some(match port.protocol {
        Protocol::Http => listener::Listener {
            filter_chains: vec![chain("http", http())],
            ..base
        },
        Protocol::Tcp => listener::Listener {
            filter_chains: vec![chain("tcp", tcp())],
            ..base
        },
        Protocol::Detected => listener::Listener {
            filter_chains: vec![matching(chain("http", http()), plaintext_http())],
            default_filter_chain: Some(chain("tcp", tcp())),
            ..with_detection(base)
        },
    })
}

/// Everything that is sent to the application from inside the mesh.
pub(super) fn inbound(mode: MutualTlsMode, reporting: &Reporting) -> listener::Listener {
    let http = || {
        vec![http::to_cluster(
            INBOUND,
            clusters::INBOUND,
            Side::Inbound,
            reporting,
        )]
    };
    let tcp = || vec![http::tcp_proxy(INBOUND, clusters::INBOUND, reporting)];
    let mut base = listener::Listener {
        use_original_dst: Some(true),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        ..any_address(INBOUND, names::INBOUND_PORT)
    };
    if mode != MutualTlsMode::Disable {
        base.listener_filters.push(tls_inspector());
        base.filter_chains.extend([
            secured(chain("mtls-http", http()), &MUTUAL_HTTP),
            secured(chain("mtls-tcp", tcp()), &[]),
        ]);
    }
    if mode == MutualTlsMode::Strict {
        return base;
    }
    base = with_detection(base);
    base.filter_chains.extend([
        matching(chain("http", http()), in_plaintext(plaintext_http())),
        matching(
            chain("tcp", tcp()),
            in_plaintext(listener::FilterChainMatch::default()),
        ),
    ]);
    base
}

/// A port of the host, which the broker listens on.
pub(super) fn published(port: PublishedPort, reporting: &Reporting) -> listener::Listener {
    let name = published_name(port);
    let cluster = clusters::inbound_port_name(port.target);
    let http = http::to_cluster(&name, &cluster, Side::Published, reporting);
    let tcp = http::tcp_proxy(&name, &cluster, reporting);
    with_detection(listener::Listener {
        address: Some(wire::address(port.host)),
        metadata: Some(wire::host_network()),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        filter_chains: vec![matching(chain("http", vec![http]), plaintext_http())],
        default_filter_chain: Some(chain("tcp", vec![tcp])),
        name,
        ..listener::Listener::default()
    })
}

/// `published|<address>|<port>`.
fn published_name(port: PublishedPort) -> String {
    format!("published|{}|{}", port.host.ip(), port.host.port())
}

/// A listener on a port of every address of both families.
fn any_address(name: &str, port: u16) -> listener::Listener {
    let address = |ip: IpAddr| wire::address_of(ip, port);
    listener::Listener {
        name: name.to_owned(),
        address: Some(address(Ipv4Addr::UNSPECIFIED.into())),
        additional_addresses: vec![additional(address(Ipv6Addr::UNSPECIFIED.into()))],
        ..listener::Listener::default()
    }
}

fn additional(address: core::Address) -> listener::AdditionalAddress {
    listener::AdditionalAddress {
        address: Some(address),
        ..listener::AdditionalAddress::default()
    }
}

fn chain(name: &str, filters: Vec<listener::Filter>) -> listener::FilterChain {
    listener::FilterChain {
        name: name.to_owned(),
        filters,
        ..listener::FilterChain::default()
    }
}

fn matching(
    chain: listener::FilterChain,
    condition: listener::FilterChainMatch,
) -> listener::FilterChain {
    listener::FilterChain {
        filter_chain_match: Some(condition),
        ..chain
    }
}

fn secured(chain: listener::FilterChain, alpn: &[&str]) -> listener::FilterChain {
    let condition = listener::FilterChainMatch {
        transport_protocol: "tls".to_owned(),
        application_protocols: alpn.iter().map(|&protocol| protocol.to_owned()).collect(),
        ..listener::FilterChainMatch::default()
    };
    listener::FilterChain {
        transport_socket: Some(tls::downstream(alpn)),
        ..matching(chain, condition)
    }
}

fn plaintext_http() -> listener::FilterChainMatch {
    listener::FilterChainMatch {
        application_protocols: PLAINTEXT_HTTP.map(str::to_owned).to_vec(),
        ..listener::FilterChainMatch::default()
    }
}

fn in_plaintext(condition: listener::FilterChainMatch) -> listener::FilterChainMatch {
    listener::FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        ..condition
    }
}

fn with_detection(mut listener: listener::Listener) -> listener::Listener {
    listener.listener_filters.push(http_inspector());
    listener.listener_filters_timeout = Some(wkt::to_wire(DETECTION_TIMEOUT));
    listener.continue_on_listener_filters_timeout = true;
    listener
}

fn http_inspector() -> listener::ListenerFilter {
    listener_filter(
        "envoy.filters.listener.http_inspector",
        any::pack(&HttpInspector {}),
    )
}

fn tls_inspector() -> listener::ListenerFilter {
    listener_filter(
        "envoy.filters.listener.tls_inspector",
        any::pack(&TlsInspector::default()),
    )
}

fn listener_filter(name: &str, configuration: weft_proto::Any) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(
            configuration,
        )),
        ..listener::ListenerFilter::default()
    }
}
