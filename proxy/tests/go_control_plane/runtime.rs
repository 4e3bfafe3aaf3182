//! Layers of the runtime: modified through the admin interface, and discovered from files and control planes.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::mesh::{Application, get, request, until_answered};
use super::named::{Running, file, statics};
use super::peer::{ControlPlane, is_missing};
use super::sources::{free_port, moved, own_service};
use super::{bootstrap, endpoints, routes};

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

/// A layer in which so many requests of a hundred are for the canary.
fn layer(share: u32) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        "name": "site",
        "layer": {"share": {"of.canary": share}},
    })
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

/// [`layered`], with a control plane in that variant of the protocol; without listeners or clusters from there.
fn with_control_plane(mut bootstrap: Value, layered: Value, source: &Value) -> Value {
    let Value::Object(fields) = layered else {
        unreachable!("a bootstrap")
    };
    let control_plane = bootstrap["static_resources"]["clusters"][0].take();
    for (name, field) in fields {
        bootstrap[name] = field;
    }
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut();
    clusters.unwrap().push(control_plane);
    let dynamic = bootstrap["dynamic_resources"].as_object_mut().unwrap();
    dynamic.remove("lds_config");
    dynamic.remove("cds_config");
    if source.get("ads").is_none() {
        dynamic.remove("ads_config");
    }
    bootstrap
}

#[tokio::test]
async fn runtime_layers_come_from_control_planes_to_envoy_and_to_weft() {
    if is_missing("runtime_layers_come_from_control_planes_to_envoy_and_to_weft") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let app = Application::start("app").await;
    moved(
        dir.path(),
        "eds.json",
        "1",
        &[endpoints("app", app.address)],
    );
    moved(dir.path(), "rds.json", "1", &[by_runtime()]);
    for variant in ["GRPC", "DELTA_GRPC"] {
        let aggregated = json!({"ads": {}, "resource_api_version": "V3"});
        for source in [aggregated, own_service(variant)] {
            for name in ["envoy", "weft"] {
                let state = tempfile::tempdir().unwrap();
                let port = free_port();
                let mut control_plane = ControlPlane::start().await;
                control_plane.set("1", &[layer(100)]).await;
                let layers = json!([
                    {"name": "base", "static_layer": {"share.of.canary": 0}},
                    {"name": "from elsewhere", "rtds_layer": {"name": "site", "rtds_config": source}},
                ]);
                let layered = layered(dir.path(), port, free_port(), &layers);
                let base = bootstrap(variant, &[control_plane.address]);
                let bootstrap = with_control_plane(base, layered, &source);

                let running = Running::start(name, &bootstrap, state.path()).await;
                until_answered(port, "canary").await;
                control_plane.set("2", &[layer(0)]).await;
                until_answered(port, "app").await;
                running.end().await;
                control_plane.kill().await;
            }
        }
    }
}
