//! A whole control plane in a temporary directory, and a plain HTTP client for it.

#![allow(
    dead_code,
    reason = "each test that shares this uses another part of it"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use weft_control_plane::mesh::Sharing;
use weft_control_plane::{Options, Running};

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Plane {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) socket: PathBuf,
    pub(crate) home: TempDir,
    pub(crate) running: Running,
    pub(crate) shutdown: CancellationToken,
    _stop: DropGuard,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(home: TempDir) -> Self {
        let path = home.path();
        let options = Options {
            home: path.to_owned(),
            runtime_dir: path.to_owned(),
            api_address: "127.0.0.1:0".parse().unwrap(),
            node_socket: path.join("node.sock"),
            node_handoff: path.join("handoff.sock"),
            telemetry_endpoint: None,
            sharing: Sharing::default(),
            xds_insecure_address: None,
        };
        let shutdown = CancellationToken::new();
        let running = weft_control_plane::start(options, shutdown.clone())
            .await
            .unwrap();
        Self {
            address: running.api_address(),
            token: std::fs::read_to_string(path.join("token"))
                .unwrap()
                .trim()
                .to_owned(),
            socket: path.join("weft.sock"),
            running,
            _stop: shutdown.clone().drop_guard(),
            shutdown,
            home,
        }
    }

    /// Ends it and keeps its directory.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.running.ended())
            .await
            .unwrap()
            .unwrap();
        self.home
    }

    /// Sends a request with the token and returns status and body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> (StatusCode, Value) {
        let request = self.request(method, path, content_type, body);
        let response = self.response(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "weft")
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", content_type)
            .body(Full::new(body.into()))
            .unwrap()
    }

    pub(crate) async fn response(&self, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        exchange(TokioIo::new(stream), request).await
    }

    pub(crate) async fn response_of_owner(
        &self,
        request: Request<Full<Bytes>>,
    ) -> http::Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        exchange(TokioIo::new(stream), request).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, "application/json", "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, "application/json", body.to_string())
            .await
    }

    /// Creates an object and expects that to work.
    pub(crate) async fn create(&self, collection: &str, object: Value) -> Value {
        let (status, body) = self.post(collection, &object).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body
    }
}

async fn exchange<S>(io: TokioIo<S>, request: Request<Full<Bytes>>) -> http::Response<Incoming>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    tokio::time::timeout(DEADLINE, sender.send_request(request))
        .await
        .unwrap()
        .unwrap()
}

pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub(crate) const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes";
pub(crate) const TRAFFIC: &str =
    "/apis/weft.dev/v1alpha1/namespaces/default/backendtrafficpolicies";

pub(crate) fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
    })
}

pub(crate) fn pod(name: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"containers": [{
            "name": app,
            "image": "example/app:1",
            "ports": [{"name": "http", "containerPort": 8080}],
        }]},
    })
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": name, "image": "example/app:1"}]},
            },
        },
    })
}

pub(crate) fn route(name: &str, service: &str, backends: Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"kind": "Service", "group": "", "name": service}],
            "rules": [{"backendRefs": backends}],
        },
    })
}

/// The texts of all causes of a refusal.
pub(crate) fn causes(status: &Value) -> Vec<String> {
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    causes
        .map(|cause| {
            let text = |field: &str| cause[field].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("field"), text("message"))
        })
        .collect()
}
