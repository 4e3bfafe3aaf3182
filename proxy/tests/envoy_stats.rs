//! Which counters and gauges of Envoy's weft has, after the same traffic through both.
//!
//! Those that it does not have are listed in `envoy_stats/missing.txt`, so that the list gets shorter knowingly.
//! `WEFT_UPDATE=1` writes it anew.

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

use mesh::{Application, get, ready, until_answered};
use peer::Envoy;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_proxy::Options;
use weft_proxy::app::{LogControl, Proxy};
use weft_proxy::bootstrap::Bootstrap;

const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
const MISSING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/envoy_stats/missing.txt");

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}

fn listener(name: &str, at: SocketAddr, filter: &Value) -> Value {
    json!({"name": name, "address": address(at), "filter_chains": [
        {"filters": [{"name": name, "typed_config": filter}]},
    ]})
}

/// One listener of HTTP, one of opaque bytes, one cluster.
fn bootstrap(ports: &Ports, application: SocketAddr) -> Value {
    let http = json!({
        "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "web",
        "route_config": {"name": "web", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": [
                {"name": "here", "match": {"path": "/here"}, "direct_response": {"status": 404}},
                {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "app"}},
            ]},
        ]},
        "http_filters": [{"name": "router", "typed_config":
            {"@type": format!("{TYPES}.http.router.v3.Router")}}],
    });
    let tcp = json!({
        "@type": format!("{TYPES}.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "raw",
        "cluster": "app",
    });
    json!({
        "admin": {"address": address(ports.admin)},
        "static_resources": {
            "listeners": [listener("web", ports.web, &http), listener("raw", ports.raw, &tcp)],
            "clusters": [{
                "name": "app",
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(application)}},
                ]}]},
            }],
        },
    })
}

struct Ports {
    admin: SocketAddr,
    web: SocketAddr,
    raw: SocketAddr,
}

impl Ports {
    fn free() -> Self {
        // All held until all are known, so that they differ.
        let held: [_; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [admin, web, raw] = held.map(|socket| socket.local_addr().unwrap());
        Ports { admin, web, raw }
    }

    /// The same traffic for both, and then the names of what was counted.
    async fn names(&self) -> BTreeSet<String> {
        until_answered(self.web, "app").await;
        self.raw_bytes().await;
        assert_eq!(get(self.web, "/here").await.0, 404);
        let (status, stats) = get(self.admin, "/stats").await;
        assert_eq!(status, 200);
        let names = stats.lines().filter_map(|line| line.split_once(": "));
        names
            .filter(|(_, value)| value.parse::<u64>().is_ok())
            .map(|(name, _)| self.neutral(name))
            .collect()
    }

    /// There and back through the listener of opaque bytes.
    async fn raw_bytes(&self) {
        let mut stream = TcpStream::connect(self.raw).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0];
        let read = tokio::time::timeout(server::PATIENCE, stream.read_exact(&mut first));
        read.await.expect("an answer in time").unwrap();
    }

    /// Ports are others each time, and workers count for themselves.
    fn neutral(&self, name: &str) -> String {
        let of = |at: SocketAddr| at.to_string().replace(':', "_");
        name.replace(&of(self.web), "WEB")
            .replace(&of(self.raw), "RAW")
            .replace(&of(self.admin), "ADMIN")
    }
}

/// What is told of Envoy's own threads, workings and administration is nobody else's.
fn is_comparable(name: &str) -> bool {
    let own = [
        "listener.admin.",
        "http.admin.",
        "http.async-client.",
        "main_thread.",
        "workers.",
        "filesystem.",
        "runtime.",
        "thread_local_cluster_manager.",
        "dns.",
    ];
    !own.iter().any(|prefix| name.starts_with(prefix)) && !name.contains(".worker_")
}

#[tokio::test]
async fn what_envoy_counts_and_weft_does_not_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let app = Application::start("app").await;
    let ports = Ports::free();
    let bootstrap = bootstrap(&ports, app.address);

    let envoy = Envoy::start(&bootstrap, dir.path());
    let of_envoy = ports.names().await;
    envoy.kill().await;
    let bootstrap = Bootstrap::parse(&bootstrap.to_string(), Path::new("test")).unwrap();
    let mut options = Options::new("test");
    options.concurrency = 1;
    let proxy = Proxy::start(&options, bootstrap, LogControl::none())
        .await
        .unwrap();
    ready(&proxy).await;
    let of_weft = ports.names().await;
    proxy.shutdown(Duration::ZERO).await;

    let missing: BTreeSet<&str> = of_envoy
        .difference(&of_weft)
        .map(String::as_str)
        .filter(|name| is_comparable(name))
        .collect();
    if std::env::var_os("WEFT_UPDATE").is_some() {
        let text: String = missing.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(MISSING, text).unwrap();
    }
    let known = std::fs::read_to_string(MISSING).unwrap();
    let known: BTreeSet<&str> = known.lines().collect();
    let new: Vec<_> = missing.difference(&known).collect();
    let no_more: Vec<_> = known.difference(&missing).collect();
    assert!(
        new.is_empty() && no_more.is_empty(),
        "missing and not listed: {new:?}; listed and not missing: {no_more:?}; WEFT_UPDATE=1 writes the list"
    );
}
