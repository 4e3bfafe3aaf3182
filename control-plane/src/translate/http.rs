//! The HTTP connection manager, as outbound, inbound and published listeners have it.

use weft_proto::envoy::config::core::v3 as core;
use weft_proto::envoy::config::listener::v3 as listener;
use weft_proto::envoy::config::route::v3 as route;
use weft_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use weft_proto::envoy::extensions::filters::http::router::v3::Router;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3 as manager;
use weft_proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use weft_proto::{any, wkt};

use super::telemetry::Reporting;
use super::wire;

use manager::http_connection_manager as parts;

/// The name under which routes configure faults.
pub(super) const FAULT: &str = "envoy.filters.http.fault";
const ROUTER: &str = "envoy.filters.http.router";
const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

/// From which side requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The pod's own application calls a service.
    Outbound,
    /// Another sidecar calls the application.
    Inbound,
    /// Somebody outside of the mesh calls the application.
    Published,
}

/// Requests to a service, by a route table of its name.
pub(super) fn by_route_table(name: &str, reporting: &Reporting) -> listener::Filter {
    let rds = manager::Rds {
        config_source: Some(wire::ads()),
        route_config_name: name.to_owned(),
    };
    connection_manager(
        name,
        parts::RouteSpecifier::Rds(rds),
        Side::Outbound,
        reporting,
    )
}

/// Requests to one cluster.
pub(super) fn to_cluster(
    name: &str,
    cluster: &str,
    side: Side,
    reporting: &Reporting,
) -> listener::Filter {
    let routes = route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![route::VirtualHost {
            name: name.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![everything_to(cluster)],
            ..route::VirtualHost::default()
        }],
        ..route::RouteConfiguration::default()
    };
    connection_manager(
        name,
        parts::RouteSpecifier::RouteConfig(routes),
        side,
        reporting,
    )
}

/// Bytes to one cluster.
pub(super) fn tcp_proxy(name: &str, cluster: &str, reporting: &Reporting) -> listener::Filter {
    let proxy = tcp::TcpProxy {
        stat_prefix: name.to_owned(),
        cluster_specifier: Some(tcp::tcp_proxy::ClusterSpecifier::Cluster(
            cluster.to_owned(),
        )),
        access_log: reporting.connection_log(),
        ..tcp::TcpProxy::default()
    };
    network_filter(TCP_PROXY, any::pack(&proxy))
}

fn connection_manager(
    name: &str,
    routes: parts::RouteSpecifier,
    side: Side,
    reporting: &Reporting,
) -> listener::Filter {
    let forwarded = parts::SetCurrentClientCertDetails {
        uri: true,
        ..parts::SetCurrentClientCertDetails::default()
    };
    let connection_manager = manager::HttpConnectionManager {
        stat_prefix: name.to_owned(),
        route_specifier: Some(routes),
        http_filters: http_filters(side),
        access_log: reporting.request_log(),
        tracing: reporting.tracing(),
        generate_request_id: Some(true),
        // Only who is called from outside must not believe what callers say of themselves.
        use_remote_address: Some(side == Side::Published),
        forward_client_cert_details: forward_client_cert(side).into(),
        set_current_client_cert_details: (side == Side::Inbound).then_some(forwarded),
        upgrade_configs: vec![parts::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..parts::UpgradeConfig::default()
        }],
        // Whoever speaks HTTP/1.0, and whoever speaks WebSocket over HTTP/2, is understood in the mesh, too.
        http_protocol_options: Some(core::Http1ProtocolOptions {
            accept_http_10: true,
            ..core::Http1ProtocolOptions::default()
        }),
        http2_protocol_options: Some(core::Http2ProtocolOptions {
            allow_connect: true,
            ..core::Http2ProtocolOptions::default()
        }),
        // A stream may be silent for as long as its ends like.
        stream_idle_timeout: Some(prost_types::Duration::default()),
        server_header_transformation: parts::ServerHeaderTransformation::PassThrough.into(),
        ..manager::HttpConnectionManager::default()
    };
    network_filter(CONNECTION_MANAGER, any::pack(&connection_manager))
}

fn forward_client_cert(side: Side) -> parts::ForwardClientCertDetails {
    match side {
        Side::Inbound => parts::ForwardClientCertDetails::SanitizeSet,
        Side::Outbound | Side::Published => parts::ForwardClientCertDetails::Sanitize,
    }
}

/// The fault filter is on every way out, idle until a route configures it: so a fault changes routes only,
/// and no listener is drained for it.
fn http_filters(side: Side) -> Vec<manager::HttpFilter> {
    let filter = |name: &str, configuration| manager::HttpFilter {
        name: name.to_owned(),
        config_type: Some(manager::http_filter::ConfigType::TypedConfig(configuration)),
        ..manager::HttpFilter::default()
    };
    let mut filters = Vec::new();
    if side == Side::Outbound {
        filters.push(filter(FAULT, any::pack(&HttpFault::default())));
    }
    filters.push(filter(ROUTER, any::pack(&Router::default())));
    filters
}

fn everything_to(cluster: &str) -> route::Route {
    route::Route {
        name: "default".to_owned(),
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
            ..route::RouteMatch::default()
        }),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(
                cluster.to_owned(),
            )),
            // Zero: no limit; left out it would be Envoy's 15 seconds.
            timeout: Some(wkt::to_wire(std::time::Duration::ZERO)),
            ..route::RouteAction::default()
        })),
        ..route::Route::default()
    }
}

fn network_filter(name: &str, configuration: weft_proto::Any) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(configuration)),
    }
}
