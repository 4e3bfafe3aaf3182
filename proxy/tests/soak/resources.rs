//! The configuration of the soak, as a control plane serves it.

use std::path::Path;

use serde_json::{Value, json};
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_proto::envoy::config::listener::v3::Listener;
use weft_proto::envoy::config::route::v3::RouteConfiguration;
use weft_proto::json::from_json;

/// Ports, in a network where nothing else is.
pub(crate) const ADMIN: u16 = 15000;
pub(crate) const HTTP: u16 = 8080;
pub(crate) const TCP: u16 = 8081;
/// Like the first two, by way of mutual TLS.
pub(crate) const HTTP_BY_TLS: u16 = 8082;
pub(crate) const TCP_BY_TLS: u16 = 8083;
/// Where mutual TLS ends.
pub(crate) const INBOUND: u16 = 8443;
/// Of a listener that comes and goes.
const EXTRA: u16 = 8090;

/// Who the proxy is, on either side of the mutual TLS.
pub(crate) const IDENTITY: &str = "spiffe://cluster.local/ns/default/sa/soak";

const TYPES: &str = "type.googleapis.com/envoy.extensions";

pub(crate) fn bootstrap(socket: &Path) -> Value {
    json!({
        "node": {"id": "sidecar~soak-1.default", "cluster": "soak.default"},
        "dynamic_resources": {"ads_config": {
            "api_type": "DELTA_GRPC",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        }},
        "static_resources": {"clusters": [{
            "name": "xds",
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": socket}}}},
            ]}]},
        }]},
    })
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn secrets() -> Value {
    let by_ads =
        |name: &str| json!({"name": name, "sds_config": {"ads": {}, "resource_api_version": "V3"}});
    json!({
        "tls_certificate_sds_secret_configs": [by_ads("identity")],
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
        },
    })
}

fn validation(names: Value) -> Value {
    json!({
        "default_validation_context": names,
        "validation_context_sds_secret_config":
            {"name": "trust-bundle", "sds_config": {"ads": {}, "resource_api_version": "V3"}},
    })
}

fn upstream_tls() -> Value {
    let mut common = secrets();
    common["combined_validation_context"] = validation(json!({"match_typed_subject_alt_names": [
        {"san_type": "URI", "matcher": {"exact": IDENTITY}},
    ]}));
    json!({"name": "tls", "typed_config": {
        "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": common,
    }})
}

fn downstream_tls(protocols: &[&str]) -> Value {
    let mut common = secrets();
    common["combined_validation_context"] = validation(json!({}));
    common["alpn_protocols"] = json!(protocols);
    json!({"name": "tls", "typed_config": {
        "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": common,
    }})
}

/// Endpoints are discovered; idle connections go soon, so that rest comes soon.
pub(crate) fn cluster(name: &str, connect_seconds: u64) -> Cluster {
    let mut cluster = json!({
        "name": name, "type": "EDS", "connect_timeout": format!("{connect_seconds}s"),
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
        "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_requests": 4096,
            "max_pending_requests": 4096, "max_retries": 256}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
            "common_http_protocol_options": {"idle_timeout": "5s"},
            "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
        }},
    });
    if name.starts_with("tls-") {
        cluster["transport_socket"] = upstream_tls();
    }
    from_json(cluster).expect("a cluster")
}

pub(crate) fn endpoints(name: &str, ports: &[u16]) -> ClusterLoadAssignment {
    let all: Vec<_> = ports
        .iter()
        .map(|port| json!({"endpoint": {"address": address(*port)}}))
        .collect();
    from_json(json!({"cluster_name": name, "endpoints": [{"lb_endpoints": all}]}))
        .expect("endpoints")
}

fn manager(prefix: &str, routes: &str) -> Value {
    json!({"name": "http", "typed_config": {
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": prefix,
        "rds": {"config_source": {"ads": {}, "resource_api_version": "V3"}, "route_config_name": routes},
        "http_filters": [{"name": "router", "typed_config":
            {"@type": format!("{TYPES}.filters.http.router.v3.Router")}}],
    }})
}

fn tcp(cluster: &str) -> Value {
    json!({"name": "tcp", "typed_config": {
        "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": cluster, "cluster": cluster,
    }})
}

fn listening(name: &str, port: u16, chains: Value) -> Listener {
    from_json(json!({"name": name, "address": address(port), "filter_chains": chains}))
        .expect("a listener")
}

/// A version of the listener of HTTP: another is another configuration, and connections drain.
pub(crate) fn http_listener(version: u64) -> Listener {
    let manager = manager(&format!("web{version}"), "web");
    listening("web", HTTP, json!([{"filters": [manager]}]))
}

pub(crate) fn extra_listener() -> Listener {
    listening(
        "extra",
        EXTRA,
        json!([{"filters": [manager("extra", "web")]}]),
    )
}

/// All the others.
pub(crate) fn listeners() -> Vec<Listener> {
    let inbound: Listener = from_json(json!({
        "name": "inbound",
        "address": address(INBOUND),
        "listener_filters": [{"name": "tls", "typed_config":
            {"@type": format!("{TYPES}.filters.listener.tls_inspector.v3.TlsInspector")}}],
        "filter_chains": [
            {
                "name": "http",
                "filter_chain_match": {
                    "transport_protocol": "tls", "application_protocols": ["h2", "http/1.1"],
                },
                "transport_socket": downstream_tls(&["h2", "http/1.1"]),
                "filters": [manager("inbound", "inbound")],
            },
            {
                "name": "tcp",
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": downstream_tls(&[]),
                "filters": [tcp("tcp")],
            },
        ],
    }))
    .expect("a listener");
    vec![
        inbound,
        listening("tcp", TCP, json!([{"filters": [tcp("tcp")]}])),
        listening(
            "web-tls",
            HTTP_BY_TLS,
            json!([{"filters": [manager("tls", "web-tls")]}]),
        ),
        listening(
            "tcp-tls",
            TCP_BY_TLS,
            json!([{"filters": [tcp("tls-tcp")]}]),
        ),
    ]
}

/// A version of routes to one cluster. A request that had no effect is tried again.
pub(crate) fn routes(name: &str, cluster: &str, version: u64) -> RouteConfiguration {
    let routes: Vec<_> = (0..version % 7)
        .map(|turn| json!({"match": {"path": format!("/never/{turn}")}, "direct_response": {"status": 204}}))
        .chain([json!({"match": {"prefix": "/"}, "route": {
            "cluster": cluster, "timeout": "0s",
            "retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 3},
        }})])
        .collect();
    from_json(json!({
        "name": name,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes,
            "response_headers_to_add": [{"header": {"key": "x-version", "value": version.to_string()}}]}],
    }))
    .expect("routes")
}
