//! Processes of `weft proxy` that follow each other in one place.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::load;
use crate::upstream::Upstream;

const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
/// Generous: other tests may be running.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ports, files and an upstream that all processes share.
pub(crate) struct Place {
    directory: TempDir,
    upstream: Upstream,
    files: AtomicU32,
    /// HTTP.
    pub(crate) web: SocketAddr,
    /// Opaque bytes.
    pub(crate) bytes: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let [web, bytes, admin] = free_ports();
        Place {
            directory: tempfile::tempdir().unwrap(),
            upstream: Upstream::start().await,
            files: AtomicU32::new(0),
            web,
            bytes,
            admin,
        }
    }

    /// A process that replaces the one that runs, if any.
    pub(crate) fn start(&self) -> Process {
        self.start_with(&self.bootstrap())
    }

    pub(crate) fn start_with(&self, bootstrap: &Value) -> Process {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let file = self.directory.path().join(format!("{number}.json"));
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(["proxy", "--concurrency", "2", "-c"])
            .arg(file)
            .arg("--handover")
            .arg(self.handover())
            .args(["--parent-shutdown-time-s", "50"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process::followed(child)
    }

    /// Where newer processes ask older ones.
    pub(crate) fn handover(&self) -> PathBuf {
        self.directory.path().join("handover.sock")
    }

    /// Where the processes write of requests.
    pub(crate) fn access_log(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }

    pub(crate) fn bootstrap(&self) -> Value {
        json!({
            "admin": {"address": socket_address(self.admin)},
            "static_resources": {
                "listeners": [self.web_listener(), self.bytes_listener()],
                "clusters": [cluster("web", self.upstream.web), cluster("bytes", self.upstream.bytes)],
            },
        })
    }

    /// One that waits for a control plane which is not there.
    pub(crate) fn without_control_plane(&self) -> Value {
        let nowhere = json!({"pipe": {"path": self.directory.path().join("nobody.sock")}});
        let mut bootstrap = self.bootstrap();
        let clusters = bootstrap["static_resources"]["clusters"]
            .as_array_mut()
            .unwrap();
        clusters.push(json!({
            "name": "xds",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "xds", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": nowhere}}]},
            ]},
        }));
        bootstrap["node"] = json!({"id": "test", "cluster": "test"});
        bootstrap["dynamic_resources"] = json!({
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [
                {"envoy_grpc": {"cluster_name": "xds"}},
            ]},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        });
        bootstrap
    }

    fn web_listener(&self) -> Value {
        json!({
            "name": "web",
            "address": socket_address(self.web),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "web",
                "access_log": [{"name": "file", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": self.access_log(),
                    "log_format": {"text_format_source": {"inline_string": "%REQ(:PATH)%\n"}},
                }}],
                "route_config": {"name": "web", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "web"}},
                ]}]},
                "http_filters": [
                    {"name": "router", "typed_config": {"@type": format!("{TYPES}.http.router.v3.Router")}},
                ],
            }}]}],
        })
    }

    fn bytes_listener(&self) -> Value {
        json!({
            "name": "bytes",
            "address": socket_address(self.bytes),
            "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
                "@type": format!("{TYPES}.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "bytes",
                "cluster": "bytes",
            }}]}],
        })
    }

    /// What the process that answers the admin interface counts as.
    pub(crate) async fn epoch(&self) -> Option<u64> {
        let answer = load::body(self.admin, "/server_info").await.ok()?;
        let info: Value = serde_json::from_str(&answer).ok()?;
        info["command_line_options"]["restart_epoch"].as_u64()
    }

    /// Waits until a process has taken over.
    pub(crate) async fn until_epoch(&self, epoch: u64) {
        let taken_over = async {
            while self.epoch().await != Some(epoch) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, taken_over).await;
        assert!(in_time.is_ok(), "no process of epoch {epoch} in time");
    }
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket_address(address)}},
        ]}]},
    })
}

fn free_ports() -> [SocketAddr; 3] {
    let bound = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap())
}

/// One process, killed at the latest when it is dropped.
pub(crate) struct Process {
    child: Mutex<Child>,
    said: Arc<Mutex<String>>,
}

impl Process {
    fn followed(mut child: Child) -> Self {
        let said = Arc::new(Mutex::new(String::new()));
        let output = BufReader::new(child.stderr.take().unwrap());
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = writeln!(std::io::stderr(), "{line}");
                heard.lock().push_str(&line);
            }
        });
        Process {
            child: Mutex::new(child),
            said,
        }
    }

    /// Whether its log has said so.
    pub(crate) fn has_said(&self, words: &str) -> bool {
        self.said.lock().contains(words)
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.lock().id().cast_signed());
        kill(pid, signal).unwrap();
    }

    /// Waits until it has ended by itself; whether it was content.
    pub(crate) async fn ended(&self) -> bool {
        let mut status = None;
        until("a process ends", || {
            status = self.child.lock().try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.is_some_and(|status| status.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Waits for something to become true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, met).await;
    assert!(in_time.is_ok(), "not in time: {what}");
}
