//! Listeners and clusters that come from elsewhere than the aggregated stream: services of their own, and files.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::mesh::{Application, listening, ready, until_answered};
use super::peer::{ControlPlane, Envoy, is_missing};
use super::{bootstrap, cluster, endpoint, endpoints, listener, proxy, routes, to};

/// The service of one kind, in the cluster of the control plane.
pub(super) fn own_service(variant: &str) -> Value {
    json!({
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": variant,
            "transport_api_version": "V3",
            "grpc_services": [{
                "envoy_grpc": {"cluster_name": "xds", "authority": "control.example"},
                "initial_metadata": [{"key": "x-token", "value": "mine"}],
            }],
        },
    })
}

/// A cluster with its endpoint in it, and a listener with its routes in it: nothing else has to be asked for.
fn whole(application: &Application, port: u16) -> (Value, Value) {
    let mut cluster = cluster("app");
    cluster["type"] = "STATIC".into();
    cluster
        .as_object_mut()
        .unwrap()
        .remove("eds_cluster_config");
    let mut assignment = endpoints("app", application.address);
    assignment.as_object_mut().unwrap().remove("@type");
    cluster["load_assignment"] = assignment;
    let mut listener = listener(port);
    let connections = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    connections.as_object_mut().unwrap().remove("rds");
    let mut routes = routes("app");
    routes.as_object_mut().unwrap().remove("@type");
    connections["route_config"] = routes;
    (cluster, listener)
}

#[tokio::test]
async fn listeners_and_clusters_come_from_services_of_their_own_and_the_rest_is_aggregated() {
    if is_missing(
        "listeners_and_clusters_come_from_services_of_their_own_and_the_rest_is_aggregated",
    ) {
        return;
    }
    for variant in ["GRPC", "DELTA_GRPC"] {
        let dir = tempfile::tempdir().unwrap();
        let blue = Application::start("blue").await;
        let green = Application::start("green").await;
        let mut control_plane = ControlPlane::start().await;
        control_plane.set("1", &to("app", &blue, 0)).await;
        let mut bootstrap = bootstrap(variant, &[control_plane.address]);
        bootstrap["dynamic_resources"]["lds_config"] = own_service(variant);
        bootstrap["dynamic_resources"]["cds_config"] = own_service(variant);
        // Endpoints and routes say `ads`.
        let proxy = proxy(&bootstrap, dir.path()).await;

        ready(&proxy).await;
        let web = listening(&proxy, "web").await;
        until_answered(web, "blue").await;
        let listeners = control_plane.stream_of("Listener").await;
        assert_eq!(listeners["variant"], variant);
        assert_eq!(listeners["authority"], "control.example");
        assert_eq!(listeners["token"], "mine");

        control_plane.set("2", &to("next", &green, 0)).await;
        until_answered(web, "green").await;
        proxy.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn services_of_their_own_need_no_aggregated_stream() {
    if is_missing("services_of_their_own_need_no_aggregated_stream") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let blue = Application::start("blue").await;
    let mut control_plane = ControlPlane::start().await;
    let port = free_port();
    let (cluster, listener) = whole(&blue, port.port());
    control_plane.set("1", &[cluster, listener]).await;
    let mut bootstrap = bootstrap("GRPC", &[control_plane.address]);
    let dynamic = bootstrap["dynamic_resources"].as_object_mut().unwrap();
    dynamic.remove("ads_config");
    dynamic.insert("lds_config".into(), own_service("GRPC"));
    dynamic.insert("cds_config".into(), own_service("GRPC"));

    let envoy = Envoy::start(&bootstrap, dir.path());
    until_answered(port, "blue").await;
    envoy.kill().await;
    let proxy = proxy(&bootstrap, dir.path()).await;
    ready(&proxy).await;
    until_answered(port, "blue").await;
    proxy.shutdown(Duration::ZERO).await;
}

pub(super) fn free_port() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// As operators do it: written beside, and moved to its place.
pub(super) fn moved(dir: &Path, name: &str, version: &str, resources: &[Value]) {
    let staged = dir.join("staged");
    let response = json!({"version_info": version, "resources": resources});
    fs::write(&staged, response.to_string()).unwrap();
    fs::rename(staged, dir.join(name)).unwrap();
}

fn from_files(dir: &Path) -> Value {
    let file = |name: &str| {
        json!({
            "resource_api_version": "V3",
            "path_config_source": {"path": dir.join(name), "watched_directory": {"path": dir}},
        })
    };
    json!({
        "node": {"id": "node", "cluster": "reviews.default"},
        "dynamic_resources": {"lds_config": file("lds.json"), "cds_config": file("cds.json")},
    })
}

#[tokio::test]
async fn files_are_followed_by_envoy_and_by_weft() {
    let dir = tempfile::tempdir().unwrap();
    let (files, state) = (dir.path().join("files"), dir.path().join("state"));
    fs::create_dir(&files).unwrap();
    fs::create_dir(&state).unwrap();
    let blue = Application::start("blue").await;
    let green = Application::start("green").await;
    let port = free_port();
    let (to_blue, listener) = whole(&blue, port.port());
    let (to_green, _) = whole(&green, port.port());
    moved(&files, "lds.json", "1", &[listener]);
    let bootstrap = from_files(&files);

    for name in ["envoy", "weft"] {
        moved(&files, "cds.json", "1", std::slice::from_ref(&to_blue));
        let envoy = (name == "envoy").then(|| Envoy::start(&bootstrap, dir.path()));
        let weft = match name {
            "weft" => Some(proxy(&bootstrap, &state).await),
            _ => None,
        };
        until_answered(port, "blue").await;

        moved(&files, "cds.json", "2", std::slice::from_ref(&to_green));
        until_answered(port, "green").await;

        if let Some(envoy) = envoy {
            envoy.kill().await;
        }
        if let Some(weft) = weft {
            weft.shutdown(Duration::ZERO).await;
        }
    }
}

#[tokio::test]
async fn what_a_file_gets_wrong_leaves_what_was_read_before() {
    let dir = tempfile::tempdir().unwrap();
    let (files, state) = (dir.path().join("files"), dir.path().join("state"));
    fs::create_dir(&files).unwrap();
    fs::create_dir(&state).unwrap();
    let blue = Application::start("blue").await;
    let green = Application::start("green").await;
    let (to_blue, listener) = whole(&blue, 0);
    let (mut to_green, _) = whole(&green, 0);
    moved(&files, "lds.json", "1", &[listener]);
    moved(&files, "cds.json", "1", std::slice::from_ref(&to_blue));
    let proxy = proxy(&from_files(&files), &state).await;
    let web = listening(&proxy, "web").await;
    until_answered(web, "blue").await;

    fs::write(files.join("staged"), "resources: [").unwrap();
    fs::rename(files.join("staged"), files.join("cds.json")).unwrap();
    let mut bad = to_blue.clone();
    bad["name"] = "bad".into();
    bad["use_tcp_for_dns_lookups"] = true.into();
    to_green["load_assignment"]["endpoints"] =
        json!([{"lb_endpoints": [endpoint(&green.address)]}]);
    until_answered(web, "blue").await;
    moved(&files, "cds.json", "3", &[bad, to_green]);

    until_answered(web, "green").await;
    proxy.shutdown(Duration::ZERO).await;
}
