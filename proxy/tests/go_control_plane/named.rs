//! What listeners and clusters name comes from sources of its own: files, and services.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use weft_proxy::app::Proxy;

use super::mesh::{Application, get, listening, ready, until_answered};
use super::peer::{ControlPlane, Envoy, is_missing};
use super::server::PATIENCE;
use super::sources::{free_port, moved, own_service};
use super::{bootstrap, cluster, endpoints, listener, proxy, routes};

/// A bootstrap's listener and clusters, which name endpoints and routes from these sources.
pub(crate) fn statics(port: u16, clusters: &[(&str, &Value)], rds: &Value) -> Value {
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

pub(crate) fn file(path: &Path) -> Value {
    json!({"resource_api_version": "V3", "path_config_source": {"path": path}})
}

/// Both at once, or one after the other.
pub(crate) enum Running {
    Envoy(Envoy),
    Weft(Box<Proxy>),
}

impl Running {
    pub(crate) async fn start(name: &str, bootstrap: &Value, dir: &Path) -> Self {
        match name {
            "envoy" => Running::Envoy(Envoy::start(bootstrap, dir)),
            _ => Running::Weft(Box::new(proxy(bootstrap, dir).await)),
        }
    }

    pub(crate) async fn end(self) {
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
