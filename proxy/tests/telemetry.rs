//! What a running proxy tells of its traffic: spans to a collector, lines into an access log.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "other test files use the rest of these modules")]

#[path = "xds/mesh.rs"]
mod mesh;
#[path = "xds/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mesh::{Application, get, listening, ready};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use weft_proxy::Options;
use weft_proxy::app::{LogControl, Proxy};
use weft_proxy::bootstrap::Bootstrap;

/// Takes spans and hands them to the test.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner()).await;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(sender)))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (address, receiver)
}

fn cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        // As the mesh has it: the collector is in the host's network.
        "metadata": {"filter_metadata": {"weft.dev": {"network": "host"}}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {
                "address": address.ip().to_string(), "port_value": address.port(),
            }}}},
        ]}]},
    })
}

async fn proxy(application: SocketAddr, collector: SocketAddr, log: &Path) -> Proxy {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
    let bootstrap = json!({
        "node": {
            "id": "sidecar~web-x1y2z.shop",
            "metadata": {"workload": "web", "namespace": "shop", "pod": "web-x1y2z"},
        },
        "static_resources": {
            "listeners": [{
                "name": "web",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "traffic_direction": "OUTBOUND",
                "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                    "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "web",
                    "route_config": {"name": "web", "virtual_hosts": [
                        {"name": "all", "domains": ["*"], "routes": [
                            {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "app"}},
                        ]},
                    ]},
                    "access_log": [{"name": "log", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                        "path": log,
                        "log_format": {"json_format": {
                            "code": "%RESPONSE_CODE%", "path": "%REQ(:PATH)%", "host": "%UPSTREAM_HOST%",
                        }},
                    }}],
                    "tracing": {"provider": {"name": "otel", "typed_config": {
                        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                        "grpc_service": {"envoy_grpc": {"cluster_name": "otlp"}},
                        "service_name": "web",
                    }}},
                    "http_filters": [{"name": "router", "typed_config":
                        {"@type": format!("{TYPES}.http.router.v3.Router")}}],
                }}]}],
            }],
            "clusters": [cluster("app", application), cluster("otlp", collector)],
        },
    });
    let bootstrap = Bootstrap::parse(&bootstrap.to_string(), Path::new("test")).unwrap();
    let mut options = Options::new("test");
    options.concurrency = 1;
    let proxy = Proxy::start(&options, bootstrap, LogControl::none())
        .await
        .unwrap();
    ready(&proxy).await;
    proxy
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    attributes
        .iter()
        .map(|attribute| {
            let value = attribute
                .value
                .as_ref()
                .and_then(|value| value.value.as_ref());
            let text = match value {
                Some(any_value::Value::StringValue(text)) => text.clone(),
                Some(any_value::Value::IntValue(number)) => number.to_string(),
                other => format!("{other:?}"),
            };
            (attribute.key.as_str(), text)
        })
        .collect()
}

/// The one span of an export, and its resource's attributes.
fn only_span(export: &ExportTraceServiceRequest) -> (&Span, BTreeMap<&str, String>) {
    let resource = &export.resource_spans[0];
    let spans = &resource.scope_spans[0].spans;
    assert_eq!(spans.len(), 1);
    (
        &spans[0],
        attributes(&resource.resource.as_ref().unwrap().attributes),
    )
}

#[tokio::test]
async fn a_request_becomes_a_span_at_the_collector() {
    let dir = tempfile::tempdir().unwrap();
    let application = Application::start("app").await;
    let (collector, mut exports) = collector().await;
    let proxy = proxy(
        application.address,
        collector,
        &dir.path().join("access.log"),
    )
    .await;
    let web = listening(&proxy, "web").await;

    assert_eq!(get(web, "/books?id=1").await.0, 200);

    let export = tokio::time::timeout(server::PATIENCE, exports.recv()).await;
    let export = export.expect("an export in time").unwrap();
    let (span, resource) = only_span(&export);
    assert_eq!(resource["service.name"], "web");
    assert_eq!(resource["k8s.namespace.name"], "shop");
    assert_eq!(resource["k8s.pod.name"], "web-x1y2z");
    assert_eq!(span.kind, i32::from(SpanKind::Client));
    assert_eq!(span.name, "GET default");
    let shown = attributes(&span.attributes);
    assert_eq!(shown["url.path"], "/books");
    assert_eq!(shown["url.query"], "id=1");
    assert_eq!(shown["http.response.status_code"], "200");
    assert_eq!(
        shown["network.peer.port"],
        application.address.port().to_string()
    );
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_waits_at_the_end_is_still_exported_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let application = Application::start("app").await;
    let (collector, mut exports) = collector().await;
    let proxy = proxy(application.address, collector, &log).await;
    let web = listening(&proxy, "web").await;
    assert_eq!(get(web, "/last").await.0, 200);

    proxy.shutdown(Duration::from_secs(5)).await;

    let export = exports.try_recv().expect("an export before the end");
    assert_eq!(only_span(&export).0.name, "GET default");
    let line: Value = serde_json::from_str(&std::fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!(
        line,
        json!({"code": 200, "path": "/last", "host": application.address.to_string()})
    );
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let application = Application::start("app").await;
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = proxy(application.address, nobody, &dir.path().join("access.log")).await;
    let web = listening(&proxy, "web").await;

    for _ in 0..10 {
        assert_eq!(get(web, "/").await.0, 200);
    }

    proxy.shutdown(Duration::ZERO).await;
}
