//! Which counters and gauges of Envoy's weft has, after the same traffic through both.
//!
//! Those that it does not have are listed in `envoy_stats/missing.txt`, so that the list gets shorter knowingly.
//! `WEFT_UPDATE=1` writes it anew. Which are counters, which gauges, and what is left once counters have begun anew, is Envoy's, too.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "other test files use the rest of these modules")]

#[path = "xds/mesh.rs"]
mod mesh;
#[path = "go_control_plane/peer.rs"]
mod peer;
#[path = "xds/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use mesh::{Application, get, ready, request, until_answered};
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

    /// The same traffic for both.
    async fn traffic(&self) {
        until_answered(self.web, "app").await;
        self.raw_bytes().await;
        assert_eq!(get(self.web, "/here").await.0, 404);
    }

    /// What was counted after it.
    async fn counted(&self) -> Counted {
        self.traffic().await;
        let names = |stats: BTreeMap<String, u64>| stats.into_keys().collect();
        let all = names(self.stats("/stats").await);
        let gauges = names(self.stats("/stats?type=Gauges").await);
        let counters = names(self.stats("/stats?type=Counters").await);
        let refused = get(self.admin, "/stats?type=Meters").await;
        assert_eq!(request(self.admin, "POST", "/reset_counters").await.0, 200);
        Counted {
            all,
            gauges,
            counters,
            refused: refused.0,
            after_reset: self.stats("/stats?filter=^cluster.app").await,
        }
    }

    /// Names and values.
    async fn stats(&self, path: &str) -> BTreeMap<String, u64> {
        let (status, stats) = get(self.admin, path).await;
        assert_eq!(status, 200, "{path}");
        let lines = stats.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter_map(|(name, value)| Some((self.neutral(name), value.parse().ok()?)))
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

/// What is told after the same traffic.
struct Counted {
    all: BTreeSet<String>,
    gauges: BTreeSet<String>,
    counters: BTreeSet<String>,
    /// The status of what asks for a kind that there is not.
    refused: u16,
    /// Of the cluster, once counters have begun anew.
    after_reset: BTreeMap<String, u64>,
}

impl Counted {
    /// Kinds are Envoy's, and what begins anew is what does there.
    fn is_like(&self, envoy: &Counted) {
        let others = self.gauges.intersection(&envoy.counters);
        let counters_there: Vec<_> = others.collect();
        let others = self.counters.intersection(&envoy.gauges);
        let gauges_there: Vec<_> = others.collect();
        assert!(
            counters_there.is_empty() && gauges_there.is_empty(),
            "gauges that are counters in Envoy: {counters_there:?}; the other way round: {gauges_there:?}"
        );
        assert_eq!(self.refused, envoy.refused);
        for name in ["upstream_rq_total", "upstream_rq_200", "membership_total"] {
            let name = format!("cluster.app.{name}");
            assert_eq!(self.after_reset[&name], envoy.after_reset[&name], "{name}");
        }
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
    let of_envoy = ports.counted().await;
    envoy.kill().await;
    let bootstrap = Bootstrap::parse(&bootstrap.to_string(), Path::new("test")).unwrap();
    let mut options = Options::new("test");
    options.concurrency = 1;
    let proxy = Proxy::start(&options, bootstrap, LogControl::none())
        .await
        .unwrap();
    ready(&proxy).await;
    let of_weft = ports.counted().await;
    proxy.shutdown(Duration::ZERO).await;

    of_weft.is_like(&of_envoy);
    let missing: BTreeSet<&str> = of_envoy
        .all
        .difference(&of_weft.all)
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
