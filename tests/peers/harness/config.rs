//! Bootstraps, in Envoy's words.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// Where the admin interface is.
pub(crate) const ADMIN_PORT: u16 = 9901;

/// What a listener does with what it accepts. All lead to one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// HTTP, to the server in the version that the client speaks.
    Http,
    /// HTTP, to the server in HTTP/1.1.
    ToHttp1,
    /// HTTP, to the server in HTTP/2.
    ToHttp2,
    /// Opaque bytes.
    Opaque,
    /// HTTP or opaque bytes, as they turn out to be.
    Detecting,
}

impl Door {
    pub(crate) const ALL: [Door; 5] = [
        Door::Http,
        Door::ToHttp1,
        Door::ToHttp2,
        Door::Opaque,
        Door::Detecting,
    ];

    pub(crate) fn port(self) -> u16 {
        match self {
            Door::Http => 10_000,
            Door::ToHttp1 => 10_001,
            Door::ToHttp2 => 10_002,
            Door::Opaque => 10_003,
            Door::Detecting => 10_004,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Door::Http => "http",
            Door::ToHttp1 => "to-http1",
            Door::ToHttp2 => "to-http2",
            Door::Opaque => "opaque",
            Door::Detecting => "detecting",
        }
    }

    /// The cluster it leads to: they differ in what is spoken there.
    fn cluster(self) -> &'static str {
        match self {
            Door::ToHttp1 => "http1",
            Door::ToHttp2 => "http2",
            _ => "same",
        }
    }

    /// A listener with this door.
    pub(crate) fn listener(self, ip: Ipv4Addr) -> Value {
        let requests = || manager(self.name(), self.cluster());
        let bytes = || tcp(self.name(), self.cluster());
        let mut listener = json!({
            "name": self.name(),
            "address": address(SocketAddr::from((ip, self.port()))),
        });
        let chains = match self {
            Door::Opaque => json!([{"filters": [bytes()]}]),
            Door::Detecting => json!([{
                "filter_chain_match": {"application_protocols": ["http/1.1", "h2c"]},
                "filters": [requests()],
            }]),
            _ => json!([{"filters": [requests()]}]),
        };
        listener["filter_chains"] = chains;
        if self == Door::Detecting {
            listener["default_filter_chain"] = json!({"filters": [bytes()]});
            listener["listener_filters"] = json!([{
                "name": "envoy.filters.listener.http_inspector",
                "typed_config": {"@type": format!("{TYPES}.filters.listener.http_inspector.v3.HttpInspector")},
            }]);
        }
        listener
    }
}

/// The clusters that all doors together lead to, at one address.
pub(crate) fn clusters(server: SocketAddr) -> Vec<Value> {
    let same = json!({"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}});
    let http2 = json!({"explicit_http_config": {"http2_protocol_options": {}}});
    let http1 = json!({"explicit_http_config": {"http_protocol_options": {}}});
    [("same", same), ("http1", http1), ("http2", http2)]
        .map(|(name, mut protocol)| {
            let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            protocol["@type"] = json!(format!("type.googleapis.com/{kind}"));
            json!({
                "name": name,
                "type": "STATIC",
                "connect_timeout": "5s",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(server)}},
                ]}]},
                "typed_extension_protocol_options": {kind: protocol},
            })
        })
        .to_vec()
}

/// A bootstrap whose configuration is all in it.
pub(crate) fn bootstrap(ip: Ipv4Addr, listeners: &[Value], clusters: &[Value]) -> Value {
    json!({
        "node": {"id": "peers", "cluster": "peers"},
        "admin": {"address": address(SocketAddr::from((ip, ADMIN_PORT)))},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// The same with a control plane beside it, which signs the proxy's identity.
pub(crate) fn with_control_plane(mut bootstrap: Value, socket: &Path) -> Value {
    bootstrap["dynamic_resources"] = json!({"ads_config": {
        "api_type": "DELTA_GRPC",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    }});
    let xds = json!({
        "name": "xds",
        "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"pipe": {"path": socket}}}},
        ]}]},
    });
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut();
    clusters.expect("clusters").push(xds);
    bootstrap
}

/// Whether a client must show who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    Required,
    Optional,
}

/// Listens in TLS, and leads to a cluster: what negotiates HTTP is that, all else is opaque.
pub(crate) fn secured_listener(at: SocketAddr, cluster: &str, client: Certificate) -> Value {
    let asks_for_certificate = client == Certificate::Required;
    let tls = json!({"name": "tls", "typed_config": {
        "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": asks_for_certificate,
        "common_tls_context": tls_context(&["h2", "http/1.1"]),
    }});
    let bare = json!({"name": "tls", "typed_config": {
        "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": asks_for_certificate,
        "common_tls_context": tls_context(&[]),
    }});
    json!({
        "name": "secured",
        "address": address(at),
        "listener_filters": [{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {"@type": format!("{TYPES}.filters.listener.tls_inspector.v3.TlsInspector")},
        }],
        "filter_chains": [
            {
                "filter_chain_match": {"transport_protocol": "tls", "application_protocols": ["h2", "http/1.1"]},
                "transport_socket": tls,
                "filters": [manager("secured", cluster)],
            },
            {
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": bare,
                "filters": [tcp("secured", cluster)],
            },
        ],
    })
}

/// Has a cluster speak TLS.
pub(crate) fn secured_cluster(mut cluster: Value) -> Value {
    cluster["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
        "common_tls_context": tls_context(&[]),
    }});
    cluster
}

/// Key, certificate and roots are the proxy's own.
fn tls_context(alpn: &[&str]) -> Value {
    json!({
        "alpn_protocols": alpn,
        "tls_certificate_sds_secret_configs": [{"name": "identity", "sds_config": {"ads": {}}}],
        "combined_validation_context": {
            "default_validation_context": {},
            "validation_context_sds_secret_config": {"name": "trust-bundle", "sds_config": {"ads": {}}},
        },
    })
}

pub(crate) fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}

fn manager(name: &str, cluster: &str) -> Value {
    json!({"name": "http", "typed_config": {
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "http_protocol_options": {"accept_http_10": true},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [{"name": "router", "typed_config": {
            "@type": format!("{TYPES}.filters.http.router.v3.Router"),
        }}],
        "route_config": {"name": name, "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}],
        }]},
    }})
}

fn tcp(name: &str, cluster: &str) -> Value {
    json!({"name": "tcp", "typed_config": {
        "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": name,
        "cluster": cluster,
    }})
}
