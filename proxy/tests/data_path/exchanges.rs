//! One request and its response: routing, headers, bodies, trailers, upgrades, reports.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use weft_proxy::config::cluster::UpstreamProtocol;
use weft_proxy::config::fault::{AbortAnswer, DelayDuration, FaultAbort, FaultConfig, FaultDelay};
use weft_proxy::config::filter::{FilterKind, FilterOverride, HttpFilter, RouteFilter};
use weft_proxy::config::headers::{HeaderAction, HeaderChange, HeaderMutations};
use weft_proxy::config::matching::{HeaderMatch, HeaderTest, Subject, TextMatch};
use weft_proxy::config::percent::Percent;
use weft_proxy::config::route::{
    DirectResponse, Forward, PathRewrite, Redirect, RouteAction, Target, WeightedCluster,
    WeightedClusters,
};
use weft_proxy::config::tracing::TracingConfig;

use crate::client::{Client, get, request, shout};
use crate::config::{all_to, cluster, http, route};
use crate::proxy::Proxy;
use crate::upstream::Upstream;

fn to(cluster: &str) -> RouteAction {
    RouteAction::Forward(Arc::new(Forward::to(cluster)))
}

#[tokio::test]
async fn requests_go_where_their_route_says() {
    let (books, reviews) = (
        Upstream::named("books").await,
        Upstream::named("reviews").await,
    );
    let routes = vec![
        route("/books", to("books")),
        route("/reviews", to("reviews")),
    ];
    let clusters = [
        cluster("books", &[books.address]),
        cluster("reviews", &[reviews.address]),
    ];
    let proxy = Proxy::serving(http(routes), clusters).await;

    assert_eq!(proxy.get("/books/1").await.body, "books");
    assert_eq!(proxy.get("/reviews").await.body, "reviews");
    let lost = proxy.get("/elsewhere").await;

    assert_eq!(lost.status, 404);
    assert_eq!(
        lost.header("x-weft-reason"),
        Some("no route for reviews/elsewhere")
    );
    assert_eq!(proxy.reports.request(2).await.flags.to_string(), "NR");
}

#[tokio::test]
async fn a_split_follows_its_weights() {
    let (v1, v2) = (Upstream::named("v1").await, Upstream::named("v2").await);
    let split = WeightedClusters::new(vec![
        WeightedCluster::new("v1", 3),
        WeightedCluster::new("v2", 1),
    ])
    .unwrap();
    let forward = Forward {
        target: Target::Weighted(split),
        ..Forward::to("")
    };
    let clusters = [cluster("v1", &[v1.address]), cluster("v2", &[v2.address])];
    let proxy = Proxy::serving(http(all_to(forward)), clusters).await;

    let mut client = Client::http1(proxy.address).await;
    for _ in 0..400 {
        client.get("/").await;
    }

    assert!((240..=360).contains(&v1.requests()), "{}", v1.requests());
    assert_eq!(v1.requests() + v2.requests(), 400);
}

#[tokio::test]
async fn a_route_rewrites_redirects_and_answers_itself() {
    let upstream = Upstream::echoing().await;
    let rewriting = Forward {
        path: Some(PathRewrite::Prefix("/v2/".into())),
        ..Forward::to("api")
    };
    let redirect = Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        scheme: Some("https".into()),
        host: None,
        port: None,
        path: None,
        strip_query: true,
        keeps_port: false,
    };
    let answer = DirectResponse::new(StatusCode::IM_A_TEAPOT, "short and stout");
    let mut changed = route("/api/", RouteAction::Forward(Arc::new(rewriting)));
    changed.request_headers = HeaderMutations {
        changes: vec![HeaderChange::literal(
            HeaderName::from_static("x-added"),
            HeaderValue::from_static("yes"),
            HeaderAction::Overwrite,
        )],
        removals: vec![],
    };
    let routes = vec![
        changed,
        route("/old", RouteAction::Redirect(redirect)),
        route("/tea", RouteAction::Respond(answer)),
    ];
    let proxy = Proxy::serving(http(routes), [cluster("api", &[upstream.address])]).await;

    let rewritten = proxy.get("/api/books?id=1").await;
    let moved = proxy.get("/old?x=1").await;
    let tea = proxy.get("/tea").await;

    assert!(
        rewritten.body.starts_with("GET /v2/books?id=1 "),
        "{}",
        rewritten.body
    );
    assert!(rewritten.body.contains("x-added: yes\n"));
    assert!(
        rewritten
            .body
            .contains("x-envoy-original-path: /api/books?id=1\n")
    );
    assert_eq!(moved.header("location"), Some("https://reviews/old"));
    assert_eq!(
        (tea.status.as_u16(), tea.body.as_str()),
        (418, "short and stout")
    );
}

#[tokio::test]
async fn headers_of_the_mesh_are_added_and_those_of_the_hop_are_not_forwarded() {
    let upstream = Upstream::echoing().await;
    let proxy = Proxy::to(cluster("echo", &[upstream.address])).await;
    let mut asked = request("POST", "/path?q=1", "the body");
    asked
        .headers_mut()
        .insert("connection", HeaderValue::from_static("x-hop"));
    asked
        .headers_mut()
        .insert("x-hop", HeaderValue::from_static("1"));

    let got = Client::http1(proxy.address).await.send(asked).await;

    assert!(
        got.body.starts_with("POST /path?q=1 HTTP/1.1\n"),
        "{}",
        got.body
    );
    assert!(got.body.ends_with("\nthe body"), "{}", got.body);
    for line in [
        "host: reviews\n",
        "x-forwarded-proto: http\n",
        "x-request-id: ",
    ] {
        assert!(got.body.contains(line), "{line} in {}", got.body);
    }
    assert!(!got.body.contains("x-hop"));
    assert!(got.header("x-envoy-upstream-service-time").is_some());
}

#[tokio::test]
async fn a_trace_is_continued() {
    let upstream = Upstream::echoing().await;
    let mut config = http(all_to(Forward::to("echo")));
    config.tracing = Some(Arc::new(TracingConfig {
        is_egress: false,
        random_sampling: Percent::ALL,
        client_sampling: Percent::ALL,
        overall_sampling: Percent::ALL,
        service_name: "".into(),
        cluster: None,
        tags: vec![],
    }));
    let proxy = Proxy::serving(config, [cluster("echo", &[upstream.address])]).await;
    let mut asked = request("GET", "/", "");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    asked
        .headers_mut()
        .insert("traceparent", HeaderValue::from_static(parent));

    let got = Client::http1(proxy.address).await.send(asked).await;

    let trace = proxy.reports.request(0).await.trace.unwrap();
    assert_eq!(trace.parent_span_id(), Some(0xb7ad_6b71_6920_3331));
    let sent = format!(
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-{:016x}-01\n",
        trace.span_id()
    );
    assert!(got.body.contains(&sent), "{sent} in {}", got.body);
}

#[tokio::test]
async fn every_version_may_call_every_version() {
    let upstream = Upstream::echoing().await;
    for protocol in [
        UpstreamProtocol::Http1,
        UpstreamProtocol::Http2,
        UpstreamProtocol::Downstream,
    ] {
        let mut config = cluster("echo", &[upstream.address]);
        config.protocol = protocol;
        let proxy = Proxy::to(config).await;
        for mut client in [
            Client::http1(proxy.address).await,
            Client::http2(proxy.address).await,
        ] {
            let version = match (&client, protocol) {
                (_, UpstreamProtocol::Http1) | (Client::Http1(_), UpstreamProtocol::Downstream) => {
                    "HTTP/1.1"
                }
                _ => "HTTP/2.0",
            };

            let got = client.send(request("PUT", "/x", "body")).await;

            assert_eq!(got.status, 200);
            assert!(
                got.body.lines().next().unwrap().ends_with(version),
                "{version} {}",
                got.body
            );
            assert!(got.body.ends_with("\nbody"), "{}", got.body);
        }
    }
}

#[tokio::test]
async fn trailers_and_their_grpc_status_arrive() {
    let upstream = Upstream::answering(|request| async {
        // An answer before the question has come would leave open how much of that is counted.
        let _ = request.into_body().collect().await;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"message"))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        Response::builder()
            .header("content-type", "application/grpc")
            .body(body.boxed())
            .unwrap()
    })
    .await;
    let proxy = Proxy::to(cluster("grpc", &[upstream.address])).await;
    let mut asked = request("POST", "/books.Books/Get", "question");
    asked
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    asked
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));

    let got = Client::http2(proxy.address).await.send(asked).await;

    assert_eq!(got.body, "message");
    assert_eq!(got.trailers.unwrap()["grpc-status"], "5");
    let report = proxy.reports.request(0).await;
    assert_eq!((report.grpc_status, report.is_grpc), (Some(5), true));
    assert_eq!((report.request_bytes, report.response_bytes), (8, 7));
}

#[tokio::test]
async fn a_grpc_caller_is_refused_in_grpc() {
    let proxy = Proxy::serving(http(vec![]), []).await;
    let mut asked = request("POST", "/books.Books/Get", "");
    asked
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));

    let got = Client::http2(proxy.address).await.send(asked).await;

    assert_eq!(got.status, 200);
    assert_eq!(got.header("grpc-status"), Some("12"));
    assert!(
        got.header("grpc-message")
            .unwrap()
            .starts_with("no route for")
    );
}

#[tokio::test]
async fn a_websocket_becomes_a_tunnel() {
    let upstream = Upstream::shouting().await;
    let proxy = Proxy::to(cluster("ws", &[upstream.address])).await;
    let heard = shout(proxy.address, "ping").await;

    assert_eq!(heard, "PING");
    let report = proxy.reports.request(0).await;
    assert_eq!(
        (
            report.response_code,
            report.request_bytes,
            report.response_bytes
        ),
        (101, 4, 4)
    );
}

#[tokio::test]
async fn a_fault_is_injected_where_its_headers_match() {
    let upstream = Upstream::named("fine").await;
    let fault = FaultConfig {
        delay: Some(FaultDelay {
            duration: DelayDuration::Fixed(std::time::Duration::from_millis(30)),
            percent: Percent::ALL,
        }),
        abort: Some(FaultAbort {
            answer: AbortAnswer::Http(StatusCode::IM_A_TEAPOT),
            percent: Percent::ALL,
            body: None,
        }),
        headers: vec![HeaderMatch {
            subject: Subject::Header(HeaderName::from_static("end-user")),
            test: HeaderTest::Value(TextMatch::exact("jason")),
            invert: false,
            missing_is_empty: false,
        }],
        ..FaultConfig::default()
    };
    let mut routes = all_to(Forward::to("fine"));
    let said = FilterOverride::Configured(RouteFilter::Fault(Arc::new(fault)));
    routes[0].filters.set("fault".into(), said);
    let mut config = http(routes);
    config.filters = vec![HttpFilter {
        name: "fault".into(),
        is_disabled: false,
        kind: FilterKind::Fault(Arc::default()),
    }];
    let proxy = Proxy::serving(config, [cluster("fine", &[upstream.address])]).await;
    let mut asked = request("GET", "/", "");
    asked
        .headers_mut()
        .insert("end-user", HeaderValue::from_static("jason"));

    let spared = proxy.get("/").await;
    let hit = Client::http1(proxy.address).await.send(asked).await;

    assert_eq!((spared.status.as_u16(), hit.status.as_u16()), (200, 418));
    let report = proxy.reports.request(1).await;
    assert_eq!(report.flags.to_string(), "DI,FI");
    assert!(report.duration >= std::time::Duration::from_millis(30));
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn a_report_says_all_there_is_to_say() {
    let upstream = Upstream::named("fine").await;
    let proxy = Proxy::to(cluster("reviews", &[upstream.address])).await;

    let got = get(proxy.address, "/a?b=c").await;

    let report = proxy.reports.request(0).await;
    assert_eq!(got.status, 200);
    assert_eq!(report.response_code, 200);
    assert_eq!(report.cluster.as_deref(), Some("reviews"));
    assert_eq!(&*report.route, "/");
    assert_eq!(report.path.unwrap(), "/a?b=c");
    assert_eq!(report.authority.unwrap(), "reviews");
    let reached = report.upstream.unwrap();
    assert_eq!(
        (reached.address, &*reached.workload.name),
        (upstream.address, "reviews")
    );
    assert_eq!((report.attempts, report.response_bytes), (1, 4));
    assert!(report.flags.is_empty());
    assert!(report.request_id.is_some() && report.upstream_latency.is_some());
}

#[tokio::test]
async fn connections_upstream_are_reused() {
    let upstream = Upstream::named("fine").await;
    let proxy = Proxy::to(cluster("fine", &[upstream.address])).await;
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }

    assert_eq!((upstream.requests(), upstream.connections()), (20, 1));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request_upstream() {
    let upstream = Upstream::hanging().await;
    let proxy = Proxy::to(cluster("slow", &[upstream.address])).await;
    let mut client = Client::http1(proxy.address).await;

    let asked = tokio::spawn(async move { client.get("/").await });
    upstream.until_requests(1).await;
    asked.abort();

    upstream.until_cancelled(1).await;
    let report = proxy.reports.request(0).await;
    assert_eq!(
        (report.flags.to_string().as_str(), report.response_code),
        ("DC", 0)
    );
    assert_eq!(proxy.reports.requests(), 1);
}
