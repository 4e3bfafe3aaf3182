//! Services that are asked: authorisation over gRPC and HTTP, and the rate limit service.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use weft_proto::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use weft_proto::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use weft_proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use weft_proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use weft_proto::json::from_json;

use super::{asking, counted, filter, proxy, proxy_with, typed};
use crate::client::{Client, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::{Upstream, nobody, text};

/// A service that answers every question alike, and remembers them.
struct Answering<Question> {
    answer: Value,
    asked: Arc<Mutex<Vec<Question>>>,
}

#[tonic::async_trait]
impl Authorization for Answering<CheckRequest> {
    async fn check(
        &self,
        question: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        self.asked.lock().push(question.into_inner());
        Ok(Response::new(from_json(self.answer.clone()).unwrap()))
    }
}

#[tonic::async_trait]
impl RateLimitService for Answering<RateLimitRequest> {
    async fn should_rate_limit(
        &self,
        question: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        self.asked.lock().push(question.into_inner());
        Ok(Response::new(from_json(self.answer.clone()).unwrap()))
    }
}

async fn bound() -> (SocketAddr, TcpListenerStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, TcpListenerStream::new(listener))
}

async fn authz(answer: Value) -> (SocketAddr, Arc<Mutex<Vec<CheckRequest>>>) {
    let asked = Arc::new(Mutex::default());
    let service = AuthorizationServer::new(Answering {
        answer,
        asked: Arc::clone(&asked),
    });
    let (address, incoming) = bound().await;
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    (address, asked)
}

async fn limits(answer: Value) -> (SocketAddr, Arc<Mutex<Vec<RateLimitRequest>>>) {
    let asked = Arc::new(Mutex::default());
    let service = RateLimitServiceServer::new(Answering {
        answer,
        asked: Arc::clone(&asked),
    });
    let (address, incoming) = bound().await;
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    (address, asked)
}

fn ext_authz(mut more: Value) -> Value {
    let service = json!({"envoy_grpc": {"cluster_name": "authz"}, "timeout": "5s"});
    if more.get("http_service").is_none() {
        more["grpc_service"] = service;
    }
    more["transport_api_version"] = "V3".into();
    filter("ext_authz.v3.ExtAuthz", more)
}

async fn proxy_asking(service: SocketAddr, upstream: SocketAddr, more: Value) -> Proxy {
    let clusters = vec![cluster("c", &[upstream]), cluster("authz", &[service])];
    proxy(vec![ext_authz(more)], clusters).await
}

#[tokio::test]
async fn a_permission_changes_the_request_and_its_response() {
    let upstream = Upstream::echoing().await;
    let (service, asked) = authz(json!({"status": {"code": 0}, "ok_response": {
        "headers": [{"header": {"key": "x-user", "value": "jason"}}],
        "headers_to_remove": ["x-secret"],
        "response_headers_to_add": [{"header": {"key": "x-checked", "value": "yes"}}],
        "query_parameters_to_set": [{"key": "q", "value": "2"}],
    }, "dynamic_metadata": {"tier": "paid"}}))
    .await;
    let proxy = proxy_asking(service, upstream.address, json!({})).await;
    let mut client = Client::http1(proxy.address).await;

    let got = client
        .send(asking(
            "GET",
            "/a?q=1",
            &[("x-secret", "s"), ("x-user", "mallory")],
        ))
        .await;

    assert_eq!(got.header("x-checked"), Some("yes"));
    assert!(got.body.starts_with("GET /a?q=2 "), "{}", got.body);
    assert!(got.body.contains("x-user: jason\n"), "{}", got.body);
    assert!(!got.body.contains("x-secret"), "{}", got.body);
    assert!(!got.body.contains("mallory"), "{}", got.body);
    let question = asked.lock()[0].clone();
    let attributes = question.attributes.unwrap();
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str()),
        ("GET", "/a?q=1")
    );
    assert_eq!(http.headers["x-secret"], "s");
    assert_eq!(
        (http.host.as_str(), http.protocol.as_str()),
        ("reviews", "HTTP/1.1")
    );
    let report = proxy.reports.request(0).await;
    let told = report.metadata.at("envoy.filters.http.ext_authz", ["tier"]);
    assert_eq!(told, Some(&json!("paid")));
    assert_eq!(counted(&proxy)["http.test.ext_authz.ok"], 1);
}

#[tokio::test]
async fn a_denial_is_told_as_the_service_says() {
    let upstream = Upstream::named("fine").await;
    let (service, _) = authz(json!({"status": {"code": 7}, "denied_response": {
        "status": {"code": "Unauthorized"},
        "headers": [{"header": {"key": "x-why", "value": "because"}}],
        "body": "not you",
    }}))
    .await;
    let proxy = proxy_asking(service, upstream.address, json!({})).await;

    let got = proxy.get("/").await;

    assert_eq!((got.status.as_u16(), got.body.as_str()), (401, "not you"));
    assert_eq!(got.header("x-why"), Some("because"));
    let report = proxy.reports.request(0).await;
    assert_eq!(report.flags.to_string(), "UAEX");
    assert_eq!(report.reason.as_deref(), Some("ext_authz_denied"));
    assert_eq!(upstream.requests(), 0);
    assert_eq!(counted(&proxy)["cluster.c.ext_authz.denied"], 1);
}

#[tokio::test]
async fn where_nobody_answers_it_is_as_configured() {
    let upstream = Upstream::echoing().await;
    let nowhere = nobody().await;
    let strict = json!({"status_on_error": {"code": "ServiceUnavailable"}});
    let lax = json!({"failure_mode_allow": true, "failure_mode_allow_header_add": true});

    let strict = proxy_asking(nowhere, upstream.address, strict).await;
    let lax = proxy_asking(nowhere, upstream.address, lax).await;

    let refused = strict.get("/").await;
    let passed = lax.get("/").await;
    assert_eq!(refused.status, 503);
    let report = strict.reports.request(0).await;
    assert_eq!(report.reason.as_deref(), Some("ext_authz_error"));
    assert_eq!(passed.status, 200);
    let mark = "x-envoy-auth-failure-mode-allowed: true\n";
    assert!(passed.body.contains(mark), "{}", passed.body);
    assert_eq!(counted(&lax)["http.test.ext_authz.failure_mode_allowed"], 1);
}

#[tokio::test]
async fn the_body_is_said_and_goes_on_whole() {
    let upstream = Upstream::echoing().await;
    let (service, asked) = authz(json!({"status": {"code": 0}})).await;
    let body =
        json!({"with_request_body": {"max_request_bytes": 4, "allow_partial_message": true}});
    let proxy = proxy_asking(service, upstream.address, body).await;

    let mut client = Client::http1(proxy.address).await;
    let got = client.send(request("POST", "/", "0123456789")).await;

    assert!(got.body.ends_with("\n0123456789"), "{}", got.body);
    let question = asked.lock()[0].clone();
    let http = question.attributes.unwrap().request.unwrap().http.unwrap();
    assert_eq!((http.body.as_str(), http.size), ("0123", 10));
    assert_eq!(http.headers["x-envoy-auth-partial-body"], "true");
}

#[tokio::test]
async fn a_body_that_is_too_large_to_be_said_is_refused() {
    let upstream = Upstream::echoing().await;
    let (service, asked) = authz(json!({"status": {"code": 0}})).await;
    let body = json!({"with_request_body": {"max_request_bytes": 4}});
    let proxy = proxy_asking(service, upstream.address, body).await;

    let mut client = Client::http1(proxy.address).await;
    let got = client.send(request("POST", "/", "0123456789")).await;

    assert_eq!(got.status, 413);
    assert!(asked.lock().is_empty());
}

#[tokio::test]
async fn a_service_of_http_decides_by_its_status() {
    let upstream = Upstream::echoing().await;
    let service = Upstream::answering(|request| async move {
        let seen = format!(
            "{} {} {}",
            request.uri().path(),
            request.headers().contains_key("x-said"),
            request.headers().contains_key("x-unsaid"),
        );
        let is_fine = request.headers().contains_key("authorization");
        let _ = request.into_body().collect().await;
        let mut answer = text(StatusCode::OK, "");
        if !is_fine {
            answer = text(StatusCode::FORBIDDEN, "who are you?");
            answer.headers_mut().insert("x-told", "1".parse().unwrap());
        }
        answer.headers_mut().insert("x-seen", seen.parse().unwrap());
        answer
    })
    .await;
    let config = json!({"http_service": {
        "server_uri": {"uri": "http://authz", "cluster": "authz", "timeout": "5s"},
        "path_prefix": "/check",
        "authorization_request": {"allowed_headers": {"patterns": [{"exact": "X-Said"}]}},
        "authorization_response": {"allowed_upstream_headers": {"patterns": [{"prefix": "x-se"}]}},
    }});
    let proxy = proxy_asking(service.address, upstream.address, config).await;
    let mut client = Client::http1(proxy.address).await;
    let headers = [("x-said", "1"), ("x-unsaid", "1"), ("authorization", "me")];

    let allowed = client.send(asking("GET", "/a", &headers)).await;
    let denied = client.send(asking("GET", "/a", &headers[..2])).await;

    assert!(
        allowed.body.contains("x-seen: /check/a true false\n"),
        "{}",
        allowed.body
    );
    assert_eq!(
        (denied.status.as_u16(), denied.body.as_str()),
        (403, "who are you?")
    );
    assert_eq!(denied.header("x-told"), Some("1"));
}

#[tokio::test]
async fn a_route_says_more_or_is_not_asked_about() {
    let upstream = Upstream::named("fine").await;
    let (service, asked) = authz(json!({"status": {"code": 0}})).await;
    let own = |config: Value| json!({"ext_authz": typed("ext_authz.v3.ExtAuthzPerRoute", config)});
    let routes = json!([
        {"match": {"path": "/off"}, "route": {"cluster": "c"},
         "typed_per_filter_config": own(json!({"disabled": true}))},
        {"match": {"prefix": "/"}, "route": {"cluster": "c"}, "typed_per_filter_config":
            own(json!({"check_settings": {"context_extensions": {"part": "all"}}}))},
    ]);
    let clusters = vec![
        cluster("c", &[upstream.address]),
        cluster("authz", &[service]),
    ];
    let proxy = proxy_with(vec![ext_authz(json!({}))], &routes, json!({}), clusters).await;

    proxy.get("/off").await;
    proxy.get("/").await;

    let asked = asked.lock();
    assert_eq!(asked.len(), 1);
    let attributes = asked[0].attributes.clone().unwrap();
    assert_eq!(attributes.context_extensions["part"], "all");
}

fn limited(more: Value) -> Value {
    let mut config = json!({"domain": "shop", "timeout": "5s", "rate_limit_service": {
        "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
        "transport_api_version": "V3",
    }});
    let own = config.as_object_mut().unwrap();
    own.extend(more.as_object().unwrap().clone());
    filter("ratelimit.v3.RateLimit", config)
}

fn limited_routes() -> Value {
    json!([
        {"match": {"path": "/free"}, "route": {"cluster": "c"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "c", "rate_limits": [{"actions": [
            {"destination_cluster": {}},
            {"request_headers": {"header_name": "x-caller", "descriptor_key": "caller"}},
        ]}]}},
    ])
}

async fn proxy_counting(service: SocketAddr, upstream: SocketAddr, more: Value) -> Proxy {
    let clusters = vec![cluster("c", &[upstream]), cluster("limits", &[service])];
    proxy_with(vec![limited(more)], &limited_routes(), json!({}), clusters).await
}

#[tokio::test]
async fn the_service_is_asked_by_descriptors_and_only_where_there_are_some() {
    let upstream = Upstream::echoing().await;
    let (service, asked) = limits(json!({"overall_code": "OK",
        "request_headers_to_add": [{"key": "x-counted", "value": "1"}]}))
    .await;
    let proxy = proxy_counting(service, upstream.address, json!({})).await;
    let mut client = Client::http1(proxy.address).await;

    let counted_one = client.send(asking("GET", "/", &[("x-caller", "a")])).await;
    let free = client
        .send(asking("GET", "/free", &[("x-caller", "a")]))
        .await;
    let nameless = client.get("/").await;

    assert!(
        counted_one.body.contains("x-counted: 1\n"),
        "{}",
        counted_one.body
    );
    assert_eq!((free.status.as_u16(), nameless.status.as_u16()), (200, 200));
    let asked = asked.lock();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].domain, "shop");
    let entries: Vec<_> = asked[0].descriptors[0]
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.value.as_str()))
        .collect();
    assert_eq!(entries, [("destination_cluster", "c"), ("caller", "a")]);
}

#[tokio::test]
async fn what_is_over_the_services_limit_is_refused_in_envoys_words() {
    let upstream = Upstream::named("fine").await;
    let (service, _) = limits(json!({"overall_code": "OVER_LIMIT", "statuses": [{
        "code": "OVER_LIMIT", "limit_remaining": 0, "duration_until_reset": "7s",
        "current_limit": {"requests_per_unit": 10, "unit": "MINUTE"},
    }]}))
    .await;
    let more = json!({"enable_x_ratelimit_headers": "DRAFT_VERSION_03"});
    let proxy = proxy_counting(service, upstream.address, more).await;
    let mut client = Client::http1(proxy.address).await;

    let got = client.send(asking("GET", "/", &[("x-caller", "a")])).await;

    assert_eq!((got.status.as_u16(), upstream.requests()), (429, 0));
    assert_eq!(got.header("x-envoy-ratelimited"), Some("true"));
    assert_eq!(got.header("x-ratelimit-limit"), Some("10, 10;w=60"));
    assert_eq!(got.header("x-ratelimit-reset"), Some("7"));
    let report = proxy.reports.request(0).await;
    assert_eq!(report.flags.to_string(), "RL");
    assert_eq!(report.reason.as_deref(), Some("request_rate_limited"));
    assert_eq!(counted(&proxy)["cluster.c.ratelimit.over_limit"], 1);
}

#[tokio::test]
async fn a_rate_limit_service_that_is_gone_limits_nothing_unless_told_to() {
    let upstream = Upstream::named("fine").await;
    let nowhere = nobody().await;
    let lax = proxy_counting(nowhere, upstream.address, json!({})).await;
    let strict = json!({"failure_mode_deny": true});
    let strict = proxy_counting(nowhere, upstream.address, strict).await;
    let asked = || asking("GET", "/", &[("x-caller", "a")]);

    let passed = Client::http1(lax.address).await.send(asked()).await;
    let refused = Client::http1(strict.address).await.send(asked()).await;

    assert_eq!(
        (passed.status.as_u16(), refused.status.as_u16()),
        (200, 500)
    );
    assert_eq!(strict.reports.request(0).await.flags.to_string(), "RLSE");
    assert_eq!(counted(&lax)["cluster.c.ratelimit.failure_mode_allowed"], 1);
}
