//! Resources for the tests of this module.

use prost::Name;
use weft_proto::any::pack;
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_proto::envoy::config::listener::v3::Listener;
use weft_proto::envoy::config::route::v3::RouteConfiguration;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use weft_proto::envoy::service::discovery::v3::Resource;
use weft_proto::json::from_json;

/// In an envelope.
pub(crate) fn resource<T: Name>(version: &str, message: &T) -> Resource {
    Resource {
        version: version.into(),
        resource: Some(pack(message)),
        ..Resource::default()
    }
}

/// A cluster without endpoints of its own.
pub(crate) fn cluster(name: &str) -> Cluster {
    from_json(serde_json::json!({
        "name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED",
    }))
    .expect("a cluster")
}

/// A cluster whose endpoints are discovered.
pub(crate) fn eds_cluster(name: &str) -> Cluster {
    from_json(serde_json::json!({
        "name": name, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}},
    }))
    .expect("a cluster")
}

/// Endpoints on loopback.
pub(crate) fn endpoints(name: &str, ports: &[u16]) -> ClusterLoadAssignment {
    let endpoints: Vec<_> = ports
        .iter()
        .map(|port| {
            serde_json::json!({"endpoint": {"address":
                {"socket_address": {"address": "127.0.0.1", "port_value": port}}}})
        })
        .collect();
    from_json(serde_json::json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}))
        .expect("endpoints")
}

/// A listener whose routes are discovered.
pub(crate) fn listener(name: &str, routes: &str) -> Listener {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
    from_json(serde_json::json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {
            "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": name,
            "rds": {"config_source": {"ads": {}}, "route_config_name": routes},
            "http_filters": [{"name": "router", "typed_config":
                {"@type": format!("{TYPES}.http.router.v3.Router")}}],
        }}]}],
    }))
    .expect("a listener")
}

/// All requests to one cluster.
pub(crate) fn routes(name: &str, cluster: &str) -> RouteConfiguration {
    from_json(serde_json::json!({
        "name": name,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": cluster}},
        ]}],
    }))
    .expect("routes")
}

/// The same with TLS, whose certificate is a secret.
pub(crate) fn listener_with_secret(name: &str, secret: &str) -> Listener {
    let mut listener = listener(name, name);
    let socket = from_json(serde_json::json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [
            {"name": secret, "sds_config": {"ads": {}}},
        ]},
    }}));
    listener.filter_chains[0].transport_socket = Some(socket.expect("a transport socket"));
    listener
}

/// A certificate and its key.
pub(crate) fn secret(name: &str) -> Secret {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["a.example".into()]).expect("valid");
    let certificate = params.self_signed(&key).expect("signed");
    from_json(serde_json::json!({"name": name, "tls_certificate": {
        "certificate_chain": {"inline_string": certificate.pem()},
        "private_key": {"inline_string": key.serialize_pem()},
    }}))
    .expect("a secret")
}
