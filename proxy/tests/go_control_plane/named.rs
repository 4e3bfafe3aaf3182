//! What listeners and clusters name comes from sources of its own: files, and services; and layers of the runtime.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use weft_proxy::app::Proxy;

use super::mesh::{Application, get, listening, ready, request, until_answered};
use super::peer::{ControlPlane, Envoy, is_missing};
use super::server::PATIENCE;
use super::sources::{free_port, moved, own_service};
use super::{bootstrap, cluster, endpoints, listener, proxy, routes};

/// A bootstrap's listener and clusters, which name endpoints and routes from these sources.
fn statics(port: u16, clusters: &[(&str, &Value)], rds: &Value) -> Value {
    let clusters = clusters.iter().map(|(name, eds)| {
        let mut cluster = cluster(name);
        cluster["eds_cluster_config"]["eds_config"] = (*eds).clone();
        without_type(cluster)
    });
    let mut listener = listener(port);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"] =
        rds.clone();
    json!({
        "listeners": [without_type(listener)],
        "clusters": clusters.collect::<Vec<_>>(),
    })
}

fn without_type(mut resource: Value) -> Value {
    resource.as_object_mut().unwrap().remove("@type");
    resource
}

fn file(path: &Path) -> Value {
    json!({"resource_api_version": "V3", "path_config_source": {"path": path}})
}

/// Both at once, or one after the other.
enum Running {
    Envoy(Envoy),
    Weft(Box<Proxy>),
}

impl Running {
    async fn start(name: &str, bootstrap: &Value, dir: &Path) -> Self {
        match name {
            "envoy" => Running::Envoy(Envoy::start(bootstrap, dir)),
            _ => Running::Weft(Box::new(proxy(bootstrap, dir).await)),
        }
    }

    async fn end(self) {
        match self {
            Running::Envoy(envoy) => envoy.kill().await,
            Running::Weft(weft) => weft.shutdown(Duration::ZERO).await,
        }
    }
}

#[tokio::test]
async fn endpoints_and_routes_of_the_bootstraps_own_resources_come_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let blue = Application::start("blue").await;
    let green = Application::start("green").await;
    let red = Application::start("red").await;
    let source = |name: &str| file(&dir.path().join(name));
    let (app, next) = (source("app.json"), source("next.json"));
    moved(
        dir.path(),
        "next.json",
        "1",
        &[endpoints("next", red.address)],
    );
    for name in ["envoy", "weft"] {
        let state = tempfile::tempdir().unwrap();
        let port = free_port();
        moved(
            dir.path(),
            "app.json",
            "1",
            &[endpoints("app", blue.address)],
        );
        moved(dir.path(), "rds.json", "1", &[routes("app")]);
        let clusters = [("app", &app), ("next", &next)];
        let bootstrap = json!({
            "node": {"id": "node", "cluster": "reviews.default"},
            "static_resources": statics(port.port(), &clusters, &source("rds.json")),
        });

        let running = Running::start(name, &bootstrap, state.path()).await;
        until_answered(port, "blue").await;
        moved(
            dir.path(),
            "app.json",
            "2",
            &[endpoints("app", green.address)],
        );
        until_answered(port, "green").await;
        moved(dir.path(), "rds.json", "2", &[routes("next")]);
        until_answered(port, "red").await;
        running.end().await;
    }
}

/// Envoy refuses a file with endpoints of more than one cluster.
#[tokio::test]
async fn of_a_file_those_resources_are_taken_that_somebody_names() {
    let dir = tempfile::tempdir().unwrap();
    let blue = Application::start("blue").await;
    let path = dir.path().join("eds.json");
    let resources = [
        endpoints("stray", blue.address),
        endpoints("app", blue.address),
    ];
    moved(dir.path(), "eds.json", "1", &resources);
    moved(dir.path(), "rds.json", "1", &[routes("app")]);
    let rds = file(&dir.path().join("rds.json"));
    let bootstrap = json!({
        "node": {"id": "node", "cluster": "reviews.default"},
        "static_resources": statics(0, &[("app", &file(&path))], &rds),
    });

    let state = tempfile::tempdir().unwrap();
    let proxy = proxy(&bootstrap, state.path()).await;
    until_answered(listening(&proxy, "web").await, "blue").await;

    let admin = proxy.admin_address().unwrap();
    let (_, dump) = get(admin, "/config_dump?resource=dynamic_endpoint_configs").await;
    assert!(
        dump.contains("\"app\"") && !dump.contains("stray"),
        "{dump}"
    );
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_read_where_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    let blue = Application::start("blue").await;
    let green = Application::start("green").await;
    let path = dir.path().join("eds.json");
    let rds = dir.path().join("rds.json");
    let written = |application: &Application| {
        let response = json!({"resources": [endpoints("app", application.address)]});
        fs::write(&path, response.to_string()).unwrap();
    };
    moved(dir.path(), "rds.json", "1", &[routes("app")]);
    let mut eds = file(&path);
    eds["path_config_source"]["watched_directory"] =
        json!({"path": dir.path(), "watch_modify": true});
    for name in ["envoy", "weft"] {
        let state = tempfile::tempdir().unwrap();
        let port = free_port();
        written(&blue);
        let bootstrap = json!({
            "node": {"id": "node", "cluster": "reviews.default"},
            "static_resources": statics(port.port(), &[("app", &eds)], &file(&rds)),
        });

        let running = Running::start(name, &bootstrap, state.path()).await;
        until_answered(port, "blue").await;
        written(&green);
        until_answered(port, "green").await;
        running.end().await;
    }
}

#[tokio::test]
async fn endpoints_come_from_a_service_of_their_own() {
    if is_missing("endpoints_come_from_a_service_of_their_own") {
        return;
    }
    for variant in ["GRPC", "DELTA_GRPC"] {
        let dir = tempfile::tempdir().unwrap();
        let blue = Application::start("blue").await;
        let green = Application::start("green").await;
        let mut control_plane = ControlPlane::start().await;
        control_plane
            .set("1", &[endpoints("app", blue.address), routes("app")])
            .await;
        let mut bootstrap = bootstrap(variant, &[control_plane.address]);
        bootstrap["dynamic_resources"] = json!({});
        let source = own_service(variant);
        let own = statics(0, &[("app", &source)], &source);
        bootstrap["static_resources"]["listeners"] = own["listeners"].clone();
        let clusters = bootstrap["static_resources"]["clusters"].as_array_mut();
        clusters.unwrap().push(own["clusters"][0].clone());

        let proxy = proxy(&bootstrap, dir.path()).await;
        ready(&proxy).await;
        let web = listening(&proxy, "web").await;
        until_answered(web, "blue").await;
        let stream = control_plane.stream_of("ClusterLoadAssignment").await;
        assert_eq!(stream["variant"], variant);
        assert_eq!(stream["authority"], "control.example");

        control_plane
            .set("2", &[endpoints("app", green.address), routes("app")])
            .await;
        until_answered(web, "green").await;
        proxy.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn a_proxy_is_ready_without_a_control_plane_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = free_port();
    let mut bootstrap = bootstrap("DELTA_GRPC", &[nobody]);
    for source in ["lds_config", "cds_config"] {
        bootstrap["dynamic_resources"][source]["initial_fetch_timeout"] = "0.1s".into();
    }

    let proxy = proxy(&bootstrap, dir.path()).await;

    ready(&proxy).await;
    proxy.shutdown(Duration::ZERO).await;
}

/// Routes of which the first is chosen as often as a runtime key says.
fn by_runtime() -> Value {
    let mut routes = routes("app");
    let all = routes["virtual_hosts"][0]["routes"].as_array_mut().unwrap();
    all.insert(
        0,
        json!({
            "match": {"prefix": "/", "runtime_fraction": {
                "default_value": {"numerator": 0, "denominator": "HUNDRED"},
                "runtime_key": "share.of.canary",
            }},
            "direct_response": {"status": 200, "body": {"inline_string": "canary"}},
        }),
    );
    routes
}

/// A bootstrap with these layers, whose routes are [`by_runtime`].
fn layered(dir: &Path, port: SocketAddr, admin: SocketAddr, layers: &Value) -> Value {
    let (eds, rds) = (dir.join("eds.json"), dir.join("rds.json"));
    json!({
        "node": {"id": "node", "cluster": "reviews.default"},
        "admin": {"address": {"socket_address": {
            "address": "127.0.0.1", "port_value": admin.port(),
        }}},
        "layered_runtime": {"layers": layers},
        "static_resources": statics(port.port(), &[("app", &file(&eds))], &file(&rds)),
    })
}

fn admin_of(running: &Running, of_envoy: SocketAddr) -> SocketAddr {
    match running {
        Running::Envoy(_) => of_envoy,
        Running::Weft(weft) => weft.admin_address().unwrap(),
    }
}

#[tokio::test]
async fn runtime_values_are_modified_while_envoy_and_weft_serve() {
    let dir = tempfile::tempdir().unwrap();
    let app = Application::start("app").await;
    moved(
        dir.path(),
        "eds.json",
        "1",
        &[endpoints("app", app.address)],
    );
    moved(dir.path(), "rds.json", "1", &[by_runtime()]);
    let layers = json!([
        {"name": "base", "static_layer": {"share.of.canary": 0}},
        {"name": "admin", "admin_layer": {}},
    ]);
    let mut shown = vec![];
    for name in ["envoy", "weft"] {
        let state = tempfile::tempdir().unwrap();
        let (port, admin) = (free_port(), free_port());
        let bootstrap = layered(dir.path(), port, admin, &layers);

        let running = Running::start(name, &bootstrap, state.path()).await;
        until_answered(port, "app").await;
        let admin = admin_of(&running, admin);
        let (status, said) = request(admin, "POST", "/runtime_modify?share.of.canary=100").await;
        assert_eq!(
            (status, said.contains("OK\n")),
            (200, true),
            "{name}: {said}"
        );
        until_answered(port, "canary").await;
        let (_, runtime) = get(admin, "/runtime").await;
        // Envoy sends it in chunks.
        let (from, to) = (runtime.find('{').unwrap(), runtime.rfind('}').unwrap());
        let mut runtime: Value = serde_json::from_str(&runtime[from..=to]).unwrap();
        shown.push(runtime["entries"]["share.of.canary"].take());
        let modified = request(admin, "POST", "/runtime_modify?share.of.canary=").await;
        assert_eq!(modified.0, 200, "{name}");
        until_answered(port, "app").await;
        let usage = request(admin, "POST", "/runtime_modify").await;
        assert_eq!(
            (usage.0, usage.1.contains("usage: ")),
            (400, true),
            "{name}: {usage:?}"
        );
        running.end().await;
    }
    assert_eq!(shown[0], shown[1]);
}

#[tokio::test]
async fn runtime_layers_are_discovered_by_envoy_and_by_weft() {
    let dir = tempfile::tempdir().unwrap();
    let app = Application::start("app").await;
    moved(
        dir.path(),
        "eds.json",
        "1",
        &[endpoints("app", app.address)],
    );
    moved(dir.path(), "rds.json", "1", &[by_runtime()]);
    let layer = |share: u32| {
        json!({
            "@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime",
            "name": "site",
            "layer": {"share": {"of.canary": share}},
        })
    };
    let rtds = file(&dir.path().join("rtds.json"));
    let layers = json!([
        {"name": "base", "static_layer": {"share.of.canary": 0}},
        {"name": "from elsewhere", "rtds_layer": {"name": "site", "rtds_config": rtds}},
    ]);
    for name in ["envoy", "weft"] {
        let state = tempfile::tempdir().unwrap();
        let (port, admin) = (free_port(), free_port());
        moved(dir.path(), "rtds.json", "1", &[layer(100)]);
        let bootstrap = layered(dir.path(), port, admin, &layers);

        let running = Running::start(name, &bootstrap, state.path()).await;
        until_answered(port, "canary").await;
        moved(dir.path(), "rtds.json", "2", &[layer(0)]);
        until_answered(port, "app").await;
        running.end().await;
    }
}

#[tokio::test]
async fn what_names_a_source_that_is_not_there_is_refused_at_once_and_by_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let app = Application::start("app").await;
    let (eds, cds) = (dir.path().join("eds.json"), dir.path().join("cds.json"));
    moved(
        dir.path(),
        "eds.json",
        "1",
        &[endpoints("app", app.address)],
    );
    let mut good = cluster("app");
    good["eds_cluster_config"]["eds_config"] = file(&eds);
    // This one says `ads`.
    moved(dir.path(), "cds.json", "1", &[good, cluster("lost")]);
    let bootstrap = json!({
        "node": {"id": "node", "cluster": "reviews.default"},
        "dynamic_resources": {"cds_config": file(&cds)},
    });

    let state = tempfile::tempdir().unwrap();
    let proxy = proxy(&bootstrap, state.path()).await;
    ready(&proxy).await;

    let admin = proxy.admin_address().unwrap();
    let told = async {
        loop {
            let (_, dump) = get(admin, "/config_dump?include_eds").await;
            if dump.contains("eds_cluster_config.eds_config.ads: there is no ADS") {
                break dump;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let dump = timeout(PATIENCE, told).await.expect("refused in time");
    assert!(dump.contains("\"name\": \"app\""), "{dump}");
    proxy.shutdown(Duration::ZERO).await;
}
