//! A proxy, an application behind it, and resources that lead from one to the other.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_proto::envoy::config::listener::v3::Listener;
use weft_proto::envoy::config::route::v3::RouteConfiguration;
use weft_proto::json::from_json;
use weft_proxy::Options;
use weft_proxy::app::{LogControl, Proxy};
use weft_proxy::bootstrap::Bootstrap;

use super::server::PATIENCE;

/// An application that answers every request with its name.
pub(crate) struct Application {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Application {
    /// Starts it on loopback.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, name));
            }
        });
        Self { address, task }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One answer for each request that has arrived; requests here have no bodies.
async fn answer(mut stream: TcpStream, name: &str) {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        received.extend_from_slice(&buffer[..count]);
        while let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            received.drain(..end + 4);
            let response = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
                name.len()
            );
            if stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// A GET; the status and the body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    request(address, "GET", path).await
}

/// A request without a body; the status and the body of the answer, 0 where there is none.
pub(crate) async fn request(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let text = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let Ok(answer) = timeout(PATIENCE, exchange)
        .await
        .expect("an answer in time")
    else {
        return (0, String::new());
    };
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

/// Waits until a request is answered so.
pub(crate) async fn until_answered(address: SocketAddr, body: &str) {
    let answered = async {
        while get(address, "/").await != (200, body.to_owned()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, answered)
        .await
        .unwrap_or_else(|_| panic!("no answer {body:?} in time"));
}

/// Waits until a listener listens.
pub(crate) async fn listening(proxy: &Proxy, name: &str) -> SocketAddr {
    let listening = async {
        loop {
            if let Some(address) = proxy.listener_addresses(name).await.first() {
                return *address;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, listening)
        .await
        .unwrap_or_else(|_| panic!("{name} does not listen in time"))
}

/// Waits until the proxy can be sent traffic.
pub(crate) async fn ready(proxy: &Proxy) {
    let ready = async {
        while !proxy.is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ready).await.expect("ready in time");
}

/// A proxy with this control plane and state directory.
pub(crate) async fn proxy(socket: &Path, state_dir: &Path) -> Proxy {
    start(socket, state_dir, false).await
}

/// The same with an identity.
#[allow(dead_code, reason = "not every test file has identities")]
pub(crate) async fn proxy_with_identity(socket: &Path, state_dir: &Path) -> Proxy {
    start(socket, state_dir, true).await
}

async fn start(socket: &Path, state_dir: &Path, identity: bool) -> Proxy {
    let bootstrap = json!({
        "node": {"id": "sidecar~reviews-x1y2z.default", "cluster": "reviews.default"},
        "dynamic_resources": {"ads_config": {
            "api_type": "DELTA_GRPC",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        }},
        "static_resources": {"clusters": [{
            "name": "xds",
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": socket}}}},
            ]}]},
        }]},
    });
    let bootstrap = Bootstrap::parse(&bootstrap.to_string(), Path::new("test")).expect("valid");
    let mut options = Options::new("test");
    options.concurrency = 1;
    options.state_dir = Some(state_dir.to_owned());
    options.identity = Some(identity);
    options.admin = Some(([127, 0, 0, 1], 0).into());
    Proxy::start(&options, bootstrap, LogControl::none())
        .await
        .expect("a proxy")
}

/// A listener on loopback whose routes are discovered.
pub(crate) fn listener(name: &str, routes: &str) -> Listener {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
    from_json(json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": {
            "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": name,
            "rds": {"config_source": {"ads": {}}, "route_config_name": routes},
            "http_filters": [{"name": "router", "typed_config":
                {"@type": format!("{TYPES}.http.router.v3.Router")}}],
        }}]}],
    }))
    .expect("a listener")
}

/// All requests to one cluster.
pub(crate) fn routes(name: &str, cluster: &str) -> RouteConfiguration {
    from_json(json!({
        "name": name,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": cluster}},
        ]}],
    }))
    .expect("routes")
}

/// A cluster whose endpoints are discovered.
pub(crate) fn cluster(name: &str) -> Cluster {
    from_json(json!({
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}},
    }))
    .expect("a cluster")
}

/// One endpoint.
pub(crate) fn endpoints(name: &str, address: SocketAddr) -> ClusterLoadAssignment {
    from_json(
        json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {
                "address": address.ip().to_string(), "port_value": address.port(),
            }}}},
        ]}]}),
    )
    .expect("endpoints")
}
