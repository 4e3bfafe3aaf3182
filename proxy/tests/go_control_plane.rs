//! The proxy and a control plane of others: go-control-plane, in both variants of ADS.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "other test files use the rest of these modules")]

#[path = "xds/mesh.rs"]
mod mesh;
#[path = "go_control_plane/named.rs"]
mod named;
#[path = "go_control_plane/peer.rs"]
mod peer;
#[path = "go_control_plane/renewal.rs"]
mod renewal;
#[path = "go_control_plane/runtime.rs"]
mod runtime;
#[path = "xds/server.rs"]
mod server;
#[path = "go_control_plane/sources.rs"]
mod sources;
#[path = "go_control_plane/tls.rs"]
mod tls;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use mesh::{Application, get, listening, ready, until_answered};
use peer::{ControlPlane, Envoy, is_missing};
use serde_json::{Value, json};
use weft_proxy::Options;
use weft_proxy::app::{LogControl, Proxy};
use weft_proxy::bootstrap::Bootstrap;

const CONFIG: &str = "type.googleapis.com/envoy.config";
const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

fn bootstrap(variant: &str, control_planes: &[SocketAddr]) -> Value {
    let endpoints: Vec<_> = control_planes.iter().map(endpoint).collect();
    json!({
        "node": {"id": "node", "cluster": "reviews.default"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": variant,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [{
            "name": "xds",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": endpoints}]},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": format!("{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
        }]},
    })
}

fn endpoint(address: &SocketAddr) -> Value {
    json!({"endpoint": {"address": {"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port(),
    }}}})
}

fn cluster(name: &str) -> Value {
    json!({
        "@type": format!("{CONFIG}.cluster.v3.Cluster"),
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
    })
}

fn endpoints(cluster: &str, address: SocketAddr) -> Value {
    json!({
        "@type": format!("{CONFIG}.endpoint.v3.ClusterLoadAssignment"),
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [endpoint(&address)]}],
    })
}

fn routes(cluster: &str) -> Value {
    json!({
        "@type": format!("{CONFIG}.route.v3.RouteConfiguration"),
        "name": "web",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": cluster}},
        ]}],
    })
}

fn listener(port: u16) -> Value {
    json!({
        "@type": format!("{CONFIG}.listener.v3.Listener"),
        "name": "web",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {
            "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "web",
            "rds": {
                "config_source": {"ads": {}, "resource_api_version": "V3"},
                "route_config_name": "web",
            },
            "http_filters": [{"name": "router", "typed_config":
                {"@type": format!("{EXTENSIONS}.filters.http.router.v3.Router")}}],
        }}]}],
    })
}

/// All that leads to an application, in one cluster of this name.
fn to(cluster_name: &str, application: &Application, port: u16) -> Vec<Value> {
    vec![
        cluster(cluster_name),
        endpoints(cluster_name, application.address),
        listener(port),
        routes(cluster_name),
    ]
}

async fn proxy(bootstrap: &Value, state_dir: &Path) -> Proxy {
    let bootstrap = Bootstrap::parse(&bootstrap.to_string(), Path::new("test")).unwrap();
    let mut options = Options::new("test");
    options.concurrency = 1;
    options.state_dir = Some(state_dir.to_owned());
    options.admin = Some(([127, 0, 0, 1], 0).into());
    Proxy::start(&options, bootstrap, LogControl::none())
        .await
        .unwrap()
}

/// Clusters, endpoints, listeners and routes come, change, are refused and go.
async fn a_life_with(variant: &str) {
    let dir = tempfile::tempdir().unwrap();
    let blue = Application::start("blue").await;
    let green = Application::start("green").await;
    let mut control_plane = ControlPlane::start().await;
    control_plane.set("1", &to("app", &blue, 0)).await;
    let proxy = proxy(&bootstrap(variant, &[control_plane.address]), dir.path()).await;

    ready(&proxy).await;
    let web = listening(&proxy, "web").await;
    until_answered(web, "blue").await;
    let opened = control_plane
        .until(|event| event["event"] == "stream")
        .await;
    assert_eq!(opened["variant"], variant);

    control_plane.set("2", &to("app", &green, 0)).await;
    until_answered(web, "green").await;

    let mut bad = cluster("bad");
    bad["use_tcp_for_dns_lookups"] = true.into();
    let mut with_bad = to("next", &blue, 0);
    with_bad.push(bad);
    control_plane.set("3", &with_bad).await;
    let refusal = control_plane
        .until(|event| event["refusal"].is_string())
        .await;
    assert_eq!(
        refusal["refusal"],
        "cluster bad: use_tcp_for_dns_lookups: true is not supported"
    );
    until_answered(web, "blue").await;

    control_plane.set("4", &[]).await;
    let gone = async {
        while get(web, "/").await.0 != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(server::PATIENCE, gone)
        .await
        .expect("gone in time");
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn the_state_of_the_world_is_followed() {
    if !is_missing("the_state_of_the_world_is_followed") {
        a_life_with("GRPC").await;
    }
}

#[tokio::test]
async fn changes_alone_are_followed() {
    if !is_missing("changes_alone_are_followed") {
        a_life_with("DELTA_GRPC").await;
    }
}

#[tokio::test]
async fn another_control_plane_takes_over_where_one_dies() {
    if is_missing("another_control_plane_takes_over_where_one_dies") {
        return;
    }
    for variant in ["GRPC", "DELTA_GRPC"] {
        let dir = tempfile::tempdir().unwrap();
        let blue = Application::start("blue").await;
        let green = Application::start("green").await;
        let mut first = ControlPlane::start().await;
        let mut second = ControlPlane::start().await;
        first.set("1", &to("app", &blue, 0)).await;
        second.set("2", &to("next", &green, 0)).await;
        let bootstrap = bootstrap(variant, &[first.address, second.address]);
        let proxy = proxy(&bootstrap, dir.path()).await;
        let web = listening(&proxy, "web").await;
        until_answered(web, "blue").await;

        first.kill().await;

        until_answered(web, "green").await;
        proxy.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn envoy_and_weft_take_the_same_file_and_the_same_resources() {
    if is_missing("envoy_and_weft_take_the_same_file_and_the_same_resources") {
        return;
    }
    for variant in ["GRPC", "DELTA_GRPC"] {
        let dir = tempfile::tempdir().unwrap();
        let blue = Application::start("blue").await;
        let mut control_plane = ControlPlane::start().await;
        let bootstrap = bootstrap(variant, &[control_plane.address]);
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        control_plane.set("1", &to("app", &blue, port.port())).await;

        let envoy = Envoy::start(&bootstrap, dir.path());
        until_answered(port, "blue").await;
        envoy.kill().await;
        let proxy = proxy(&bootstrap, dir.path()).await;
        until_answered(port, "blue").await;
        proxy.shutdown(Duration::ZERO).await;
    }
}
