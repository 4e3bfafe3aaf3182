//! The admin interface, health and metrics of a running proxy.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "other test files use the rest of these modules")]

#[path = "xds/mesh.rs"]
mod mesh;
#[path = "xds/server.rs"]
mod server;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh::{Application, get, listening, ready, request};
use serde_json::{Value, json};
use weft_proto::envoy::admin::v3::{Clusters, ConfigDump};
use weft_proto::json::from_json;
use weft_proxy::app::{LogControl, Proxy};
use weft_proxy::bootstrap::Bootstrap;
use weft_proxy::{Mode, Options};

const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";

/// A listener `web` that leads to one application.
fn bootstrap(application: SocketAddr) -> Value {
    json!({
        "node": {"id": "sidecar~web-1.default", "cluster": "web.default"},
        "static_resources": {
            "listeners": [{
                "name": "web",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                    "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "web",
                    "route_config": {"name": "web", "virtual_hosts": [
                        {"name": "all", "domains": ["*"], "routes": [
                            {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "app"}},
                        ]},
                    ]},
                    "http_filters": [{"name": "router", "typed_config":
                        {"@type": format!("{TYPES}.http.router.v3.Router")}}],
                }}]}],
            }],
            "clusters": [{
                "name": "app",
                "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": {"socket_address": {
                        "address": application.ip().to_string(), "port_value": application.port(),
                    }}}},
                ]}]},
            }],
        },
    })
}

fn options() -> Options {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut options = Options::new("test");
    options.concurrency = 2;
    options.admin = Some(any);
    options.health = vec![any];
    options.metrics = vec![any];
    options
}

async fn start(application: &Application) -> Proxy {
    let json = bootstrap(application.address).to_string();
    let bootstrap = Bootstrap::parse(&json, Path::new("test")).unwrap();
    let proxy = Proxy::start(&options(), bootstrap, LogControl::none())
        .await
        .unwrap();
    ready(&proxy).await;
    proxy
}

#[tokio::test]
async fn everything_that_is_shown_is_of_what_is_served() {
    let application = Application::start("app").await;
    let proxy = start(&application).await;
    let web = listening(&proxy, "web").await;
    assert_eq!(get(web, "/").await, (200, "app".into()));
    let admin = proxy.admin_address().unwrap();

    let (_, dump) = get(admin, "/config_dump").await;
    let dump: ConfigDump = from_json(serde_json::from_str(&dump).unwrap()).unwrap();
    assert_eq!(dump.configs.len(), 5);
    let (_, clusters) = get(admin, "/clusters").await;
    assert!(
        clusters.contains(&format!("app::{}::rq_total::1", application.address)),
        "{clusters}"
    );
    let (_, clusters) = get(admin, "/clusters?format=json").await;
    let clusters: Clusters = from_json(serde_json::from_str(&clusters).unwrap()).unwrap();
    assert!(!clusters.cluster_statuses[0].added_via_api);
    assert_eq!(get(admin, "/listeners").await.1, format!("web::{web}\n"));
    let (_, stats) = get(admin, "/stats?filter=upstream_rq_total").await;
    assert_eq!(stats, "cluster.app.upstream_rq_total: 1\n");
    let (_, stats) = get(
        admin,
        "/stats?format=json&usedonly&filter=app.upstream_rq_t",
    )
    .await;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    let used = json!({"stats": [{"name": "cluster.app.upstream_rq_total", "value": 1}]});
    assert_eq!(stats, used);
    let (_, info) = get(admin, "/server_info").await;
    let info: Value = serde_json::from_str(&info).unwrap();
    assert_eq!(
        (&info["state"], &info["node"]["id"]),
        (&json!("LIVE"), &json!("sidecar~web-1.default"))
    );
    let (_, masked) = get(
        admin,
        "/config_dump?resource=static_clusters&mask=cluster.name",
    )
    .await;
    let masked: Value = serde_json::from_str(&masked).unwrap();
    assert_eq!(masked["configs"][0]["cluster"]["name"], "app");
    assert_eq!(masked["configs"][0]["last_updated"], Value::Null);
    assert_eq!(get(admin, "/config_dump?mask=nothing").await.0, 400);
    assert_eq!(get(admin, "/init_dump").await, (200, "{}\n".into()));
    assert_eq!(get(admin, "/ready").await, (200, "LIVE\n".into()));
    let (_, memory) = get(admin, "/memory").await;
    assert!(memory.contains("total_physical_bytes"), "{memory}");
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn memory_is_released_after_a_dump() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let mut options = options();
    options.release_memory = || RELEASED.store(true, Ordering::Relaxed);
    let bootstrap = Bootstrap::parse("{}", Path::new("test")).unwrap();
    let proxy = Proxy::start(&options, bootstrap, LogControl::none())
        .await
        .unwrap();
    assert!(!RELEASED.load(Ordering::Relaxed));

    let (status, _) = get(proxy.admin_address().unwrap(), "/config_dump").await;

    assert_eq!(status, 200);
    assert!(RELEASED.load(Ordering::Relaxed));
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_is_wrong_is_answered_with_what_is_right() {
    let application = Application::start("app").await;
    let proxy = start(&application).await;
    let admin = proxy.admin_address().unwrap();

    let (status, body) = get(admin, "/nonsense").await;
    assert_eq!(status, 404);
    assert!(body.contains("/config_dump"), "{body}");
    assert_eq!(
        get(admin, "/drain_listeners").await.0,
        405,
        "a GET changes nothing"
    );
    assert_eq!(get(admin, "/stats?filter=(").await.0, 400);
    assert_eq!(get(admin, "/config_dump?resource=nonsense").await.0, 404);
    assert_eq!(
        request(admin, "POST", "/logging?level=nonsense[").await.0,
        400
    );
    assert!(proxy.is_ready());
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_drained_proxy_is_unready_and_accepts_nothing_more() {
    let application = Application::start("app").await;
    let proxy = start(&application).await;
    let web = listening(&proxy, "web").await;
    let health = proxy.health_addresses()[0];
    assert_eq!(get(health, "/healthz/ready").await.0, 200);

    let admin = proxy.admin_address().unwrap();
    assert_eq!(request(admin, "POST", "/drain_listeners").await.0, 200);

    assert_eq!(get(health, "/healthz/ready").await.0, 503);
    let refused = async {
        while get(web, "/").await.0 != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(server::PATIENCE, refused)
        .await
        .expect("refused in time");
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn prometheus_finds_nothing_wrong_with_the_metrics() {
    let application = Application::start("app").await;
    let proxy = start(&application).await;
    let web = listening(&proxy, "web").await;
    for path in ["/", "/a?b", "/%22quoted"] {
        assert_eq!(get(web, path).await.0, 200);
    }

    let (status, text) = get(proxy.metrics_addresses()[0], "/metrics").await;

    assert_eq!(status, 200);
    assert!(
        text.contains("weft_requests_total{reporter=\"source\""),
        "{text}"
    );
    assert!(
        text.contains("weft_cluster_requests_total{cluster=\"app\"} 3\n"),
        "{text}"
    );
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
    for of_envoy in [
        "envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix=\"web\",envoy_response_code_class=\"2\"} 3\n",
        "envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix=\"web\"} ",
        "envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"web\",le=\"60000\"} 3\n",
        "envoy_listener_downstream_cx_total{envoy_listener_address=\"127.0.0.1_0\"} ",
        "envoy_cluster_upstream_rq{envoy_cluster_name=\"app\",envoy_response_code=\"200\"} 3\n",
        "envoy_server_live 1\n",
    ] {
        assert!(text.contains(of_envoy), "{of_envoy}: {text}");
    }
    let checked = promtool(&text);
    assert_eq!(checked, "", "{text}");
    proxy.shutdown(Duration::ZERO).await;
}

/// What `promtool check metrics` says; nothing when all is well.
fn promtool(text: &str) -> String {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs; it comes with: apt-get install -y prometheus");
    tool.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!(
        "{}{}",
        String::from_utf8_lossy(&said),
        if output.status.success() {
            ""
        } else {
            "failed"
        }
    )
}

#[tokio::test]
async fn a_listener_whose_port_becomes_free_makes_the_proxy_ready() {
    let application = Application::start("app").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut json = bootstrap(application.address);
    json["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] =
        port.into();
    let bootstrap = Bootstrap::parse(&json.to_string(), Path::new("test")).unwrap();
    let proxy = Proxy::start(&options(), bootstrap, LogControl::none())
        .await
        .unwrap();
    let health = proxy.health_addresses()[0];
    let waits = async {
        while !get(health, "/healthz/ready")
            .await
            .1
            .contains("not all listeners")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(server::PATIENCE, waits)
        .await
        .expect("it waits");

    drop(taken);

    ready(&proxy).await;
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/").await.0, 200);
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_it() {
    let application = Application::start("app").await;
    let json = bootstrap(application.address).to_string();
    let bootstrap = Bootstrap::parse(&json, Path::new("test")).unwrap();
    let mut options = options();
    options.admin = Some(application.address);

    let started = Proxy::start(&options, bootstrap, LogControl::none()).await;

    let error = started.err().expect("an error").to_string();
    assert!(error.contains(&application.address.to_string()), "{error}");
}

#[test]
fn a_bootstrap_is_only_checked_where_that_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootstrap.json");
    let mut options = Options::new(&path);
    options.mode = Mode::Validate;
    std::fs::write(&path, bootstrap(([127, 0, 0, 1], 1).into()).to_string()).unwrap();
    assert!(weft_proxy::run(options.clone()).is_ok());

    std::fs::write(&path, "static_resources: {listeners: [{name: web}]}").unwrap();

    let error = weft_proxy::run(options).expect_err("refused").to_string();
    assert!(
        error.contains("static_resources.listeners[0].address: missing"),
        "{error}"
    );
}
