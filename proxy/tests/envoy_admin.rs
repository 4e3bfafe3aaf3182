//! What the admin interface shows, beside what Envoy's shows of the same configuration after the same request.
//!
//! Names are compared, of fields and of lines, not values: all that Envoy has is there, but for what `LEFT_OUT` tells
//! with its reason. What is there and is not in Envoy is nobody's concern.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "other test files use the rest of these modules")]

#[path = "xds/mesh.rs"]
mod mesh;
#[path = "go_control_plane/peer.rs"]
mod peer;
#[path = "xds/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use mesh::{Application, get, request, until_answered};
use peer::Envoy;
use serde_json::{Value, json};
use weft_proxy::Options;
use weft_proxy::app::{LogControl, Proxy};
use weft_proxy::bootstrap::Bootstrap;

const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";

/// What is shown as JSON.
const JSON: [&str; 8] = [
    "/clusters?format=json",
    "/listeners?format=json",
    "/certs",
    "/server_info",
    "/memory",
    "/init_dump",
    "/runtime",
    "/config_dump?name_regex=app|web",
];

/// What is not shown, by how its name begins, and why.
const LEFT_OUT: [(&str, &str); 13] = [
    (
        "/clusters app::ADDRESS::cx_connect_fail",
        "is counted for the cluster: upstream_cx_connect_fail",
    ),
    (
        "/clusters app::ADDRESS::cx_total",
        "is counted for the cluster: upstream_cx_total",
    ),
    (
        "/clusters app::ADDRESS::rq_pending_active",
        "requests that wait have no endpoint yet",
    ),
    (
        "/clusters app::ADDRESS::rq_timeout",
        "is counted for the cluster: upstream_rq_timeout",
    ),
    (
        "/clusters app::ADDRESS::success_rate",
        "rates are made up when endpoints are compared, and not kept",
    ),
    (
        "/clusters app::ADDRESS::local_origin_success_rate",
        "rates are made up when endpoints are compared, and not kept",
    ),
    (
        "/clusters app::outlier::",
        "rates are made up when endpoints are compared, and not kept",
    ),
    (
        "/clusters?format=json cluster_statuses[].host_statuses[].stats[",
        "as in the text",
    ),
    ("/server_info command_line_options.", "flags are weft's own"),
    (
        "/server_info hot_restart_initializing",
        "a proxy that is to replace another answers nothing before it has",
    ),
    ("/server_info node.", "the node is shown as it was written"),
    (
        "/config_dump?name_regex=app|web configs[].bootstrap.node.",
        "the node is shown as it was written",
    ),
    (
        "/config_dump?name_regex=app|web configs[].@type=\"type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump\"",
        "there are no scoped routes",
    ),
];

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}

/// A listener and a cluster with all that is shown of one.
fn bootstrap(admin: SocketAddr, web: SocketAddr, application: SocketAddr) -> Value {
    let manager = json!({
        "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "web",
        "route_config": {"name": "web", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "app"}},
        ]}]},
        "http_filters": [{"name": "router", "typed_config":
            {"@type": format!("{TYPES}.http.router.v3.Router")}}],
    });
    json!({
        "node": {"id": "node", "cluster": "reviews.default"},
        "admin": {"address": address(admin)},
        "layered_runtime": {"layers": [{"name": "base", "static_layer": {"a.key": 1}}]},
        "static_resources": {
            "listeners": [{
                "name": "web",
                "address": address(web),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }, with_tls(&manager)],
            "clusters": [{
                "name": "app",
                "connect_timeout": "1s",
                "outlier_detection": {},
                "load_assignment": {"cluster_name": "app", "endpoints": [{
                    "locality": {"region": "here", "zone": "a", "sub_zone": "b"},
                    "lb_endpoints": [{
                        "endpoint": {"address": address(application)},
                        "load_balancing_weight": 2,
                        "metadata": {"filter_metadata": {"envoy.lb": {"canary": true}}},
                    }],
                }]},
            }],
        },
    })
}

/// Names of what is shown, each with the path that shows it.
async fn shown(admin: SocketAddr, application: SocketAddr) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in JSON {
        let text = text(admin, path).await;
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"));
        let mut found = BTreeSet::new();
        fields(&value, "", &mut found);
        names.extend(found.iter().map(|name| format!("{path} {name}")));
    }
    for path in ["/clusters", "/listeners"] {
        for line in text(admin, path).await.lines() {
            let line = line.replace(&application.to_string(), "ADDRESS");
            let (name, _) = line.rsplit_once("::").unwrap();
            names.insert(format!("{path} {name}"));
        }
    }
    names
}

/// An answer's body, which Envoy sends in chunks.
async fn text(admin: SocketAddr, path: &str) -> String {
    let (status, body) = get(admin, path).await;
    assert_eq!(status, 200, "{path}");
    let Some((size, _)) = body.split_once("\r\n") else {
        return body;
    };
    if usize::from_str_radix(size, 16).is_err() {
        return body;
    }
    let (mut whole, mut rest) = (String::new(), body.as_str());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}

/// The names of all fields. Statistics are told apart by their names, and the types of dumps by theirs.
fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let at = match at {
                    "" => name.clone(),
                    at => format!("{at}.{name}"),
                };
                fields(member, &at, found);
                if name == "@type" {
                    found.insert(format!("{at}={member}"));
                }
                found.insert(at);
            }
        }
        Value::Array(members) => {
            for member in members {
                let is_statistic = at.ends_with("stats");
                let name = member["name"].as_str().filter(|_| is_statistic);
                let at = format!("{at}[{}]", name.unwrap_or_default());
                fields(member, &at, found);
            }
        }
        _ => {}
    }
}

/// A listener whose certificate is shown.
fn with_tls(manager: &Value) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["web.example".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let inline = |text: String| json!({"inline_string": text});
    let sockets = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
    json!({
        "name": "web with tls",
        "address": address(([127, 0, 0, 1], 0).into()),
        "filter_chains": [{
            "filters": [{"name": "http", "typed_config": manager}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": format!("{sockets}.DownstreamTlsContext"),
                "common_tls_context": {
                    "tls_certificates": [{
                        "certificate_chain": inline(certificate.pem()),
                        "private_key": inline(key.serialize_pem()),
                    }],
                    "validation_context": {"trusted_ca": inline(certificate.pem())},
                },
            }},
        }],
    })
}

fn free() -> [SocketAddr; 2] {
    // Both held until both are known, so that they differ.
    let held: [_; 2] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|socket| socket.local_addr().unwrap())
}

async fn weft(bootstrap: &Value) -> Proxy {
    let bootstrap = Bootstrap::parse(&bootstrap.to_string(), Path::new("test")).unwrap();
    let mut options = Options::new("test");
    options.concurrency = 1;
    Proxy::start(&options, bootstrap, LogControl::none())
        .await
        .unwrap()
}

#[tokio::test]
async fn all_that_envoy_shows_is_shown_but_for_what_is_left_out_with_a_reason() {
    let application = Application::start("app").await;
    let dir = tempfile::tempdir().unwrap();
    let [admin, web] = free();
    let bootstrap = bootstrap(admin, web, application.address);

    let envoy = Envoy::start(&bootstrap, dir.path());
    until_answered(web, "app").await;
    let of_envoy = shown(admin, application.address).await;
    envoy.kill().await;
    let weft = weft(&bootstrap).await;
    until_answered(web, "app").await;
    let of_weft = shown(admin, application.address).await;
    weft.shutdown(Duration::ZERO).await;

    let missing: Vec<_> = of_envoy.difference(&of_weft).collect();
    let is_explained = |name: &str| LEFT_OUT.iter().any(|(start, _)| name.starts_with(start));
    let unexplained: Vec<_> = missing.iter().filter(|name| !is_explained(name)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    let is_stale = |start: &str| !missing.iter().any(|name| name.starts_with(start));
    let stale: Vec<_> = LEFT_OUT
        .iter()
        .filter(|(start, _)| is_stale(start))
        .collect();
    assert!(stale.is_empty(), "no longer left out: {stale:#?}");
}

#[tokio::test]
async fn requests_are_refused_as_by_envoy() {
    let application = Application::start("app").await;
    let dir = tempfile::tempdir().unwrap();
    let [admin, web] = free();
    let bootstrap = bootstrap(admin, web, application.address);
    let asked = [
        ("GET", "/nothing"),
        ("GET", "/reopen_logs"),
        ("POST", "/reopen_logs"),
        ("GET", "/runtime_modify?a=b"),
        ("POST", "/runtime_modify"),
        ("POST", "/runtime_modify?a=b"),
        ("GET", "/config_dump?name_regex=("),
        ("GET", "/config_dump?resource=nothing"),
        ("GET", "/clusters?filter=nothing"),
        ("GET", "/hot_restart_version"),
        ("GET", "/quitquitquit"),
        ("DELETE", "/stats"),
        ("DELETE", "/nothing"),
        ("GET", "/stats?format=nothing"),
        ("GET", "/stats?filter=("),
        ("GET", "/stats?histogram_buckets=nothing"),
        ("GET", "/stats?histogram_buckets=summary&filter=nothing"),
        ("GET", "/stats/prometheus?filter=("),
        ("GET", "/config_dump?resource="),
        ("GET", "/config_dump?resource=bootstrap"),
        ("GET", "/config_dump?resource=dynamic_listeners"),
        (
            "GET",
            "/config_dump?include_eds&resource=static_endpoint_configs",
        ),
        ("POST", "/logging?level=nothing"),
        ("POST", "/logging?paths=nothing"),
        ("POST", "/logging?level=info&paths=a:info"),
    ];
    let statuses = async |admin| {
        let mut statuses = vec![];
        for (method, path) in asked {
            let (status, _) = request(admin, method, path).await;
            statuses.push((method, path, status));
        }
        statuses
    };

    let envoy = Envoy::start(&bootstrap, dir.path());
    until_answered(web, "app").await;
    let of_envoy = statuses(admin).await;
    envoy.kill().await;
    let weft = weft(&bootstrap).await;
    until_answered(web, "app").await;
    let of_weft = statuses(admin).await;
    weft.shutdown(Duration::ZERO).await;

    assert_eq!(of_weft, of_envoy);
}

#[tokio::test]
async fn metrics_are_selected_by_the_names_that_statistics_have() {
    let application = Application::start("app").await;
    let dir = tempfile::tempdir().unwrap();
    let [admin, web] = free();
    let bootstrap = bootstrap(admin, web, application.address);
    let shown = async |admin| {
        let mut all = vec![];
        for path in [
            "/stats/prometheus?filter=cluster.app.upstream_rq_2xx",
            "/stats?format=prometheus&filter=app.upstream_rq_[25]xx&usedonly",
            "/stats/prometheus?filter=of.nothing",
        ] {
            let text = text(admin, path).await;
            let samples = text.lines().filter(|line| !line.starts_with('#'));
            // Labels are in no certain order.
            let mut samples: Vec<String> = samples
                .map(|line| line.split('{').next().unwrap_or_default().to_owned())
                .filter(|line| !line.trim().is_empty())
                .collect();
            samples.sort();
            all.push((path, samples));
        }
        all
    };

    let envoy = Envoy::start(&bootstrap, dir.path());
    until_answered(web, "app").await;
    let of_envoy = shown(admin).await;
    envoy.kill().await;
    let weft = weft(&bootstrap).await;
    until_answered(web, "app").await;
    let of_weft = shown(admin).await;
    weft.shutdown(Duration::ZERO).await;

    assert_eq!(of_weft, of_envoy);
    assert_eq!(of_weft[0].1, ["envoy_cluster_upstream_rq_xx"]);
}
