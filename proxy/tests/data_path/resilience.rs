//! What the proxy does when upstreams fail: retries, breakers, time-outs, ejections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weft_proxy::config::balancing::Balancer;
use weft_proxy::config::cluster::outlier::OutlierDetection;
use weft_proxy::config::cluster::{ClusterConfig, RetryLimit, Thresholds};
use weft_proxy::config::percent::Percent;
use weft_proxy::config::retry::{RetryConditions, RetryPolicy};
use weft_proxy::config::route::Forward;

use crate::client::{Client, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::{Upstream, nobody, text, until};

/// The mesh's default.
fn default_policy() -> RetryPolicy {
    RetryPolicy {
        on: RetryConditions {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            reset_if_idempotent: true,
            ..RetryConditions::default()
        },
        retries: 2,
        avoid_previous_endpoints: true,
        ..RetryPolicy::default()
    }
}

fn retrying(policy: RetryPolicy) -> Forward {
    Forward {
        retry: Some(Arc::new(policy)),
        ..Forward::to("c")
    }
}

fn on_server_errors() -> RetryPolicy {
    RetryPolicy {
        on: RetryConditions {
            server_error: true,
            ..RetryConditions::default()
        },
        ..default_policy()
    }
}

fn limited(addresses: &[SocketAddr], breakers: Thresholds) -> ClusterConfig {
    ClusterConfig {
        breakers,
        ..cluster("c", addresses)
    }
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_stepped_over() {
    let upstream = Upstream::named("fine").await;
    let config = ClusterConfig {
        // Left to chance alone, all tries would sometimes hit the unreachable one.
        balancer: Balancer::Random,
        ..cluster("c", &[nobody().await, upstream.address])
    };
    let proxy = Proxy::with(retrying(default_policy()), config).await;
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..40 {
        assert_eq!(client.send(request("POST", "/", "body")).await.body, "fine");
    }

    for index in 0..40 {
        let report = proxy.reports.request(index).await;
        assert!(report.attempts <= 2 && report.flags.is_empty());
    }
}

#[tokio::test]
async fn without_a_reachable_endpoint_the_caller_is_told() {
    let nowhere = nobody().await;
    let proxy = Proxy::with(retrying(default_policy()), cluster("c", &[nowhere])).await;

    let got = proxy.get("/").await;

    assert_eq!(got.status, 503);
    let reason = got.header("x-weft-reason").unwrap();
    assert!(
        reason.contains(&format!("connecting to {nowhere}")),
        "{reason}"
    );
    let report = proxy.reports.request(0).await;
    assert_eq!(
        (report.flags.to_string().as_str(), report.attempts),
        ("URX,UF", 3)
    );
}

#[tokio::test]
async fn a_server_error_is_retried_elsewhere_with_the_whole_body() {
    let bodies = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&bodies);
    let failing = Upstream::answering(|request| async move {
        let _ = request.into_body().collect().await;
        text(StatusCode::SERVICE_UNAVAILABLE, "")
    })
    .await;
    let fine = Upstream::answering(move |request| {
        let counted = Arc::clone(&counted);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            counted.fetch_add(usize::from(body == "the whole body"), Ordering::SeqCst);
            text(StatusCode::OK, "fine")
        }
    })
    .await;
    let addresses = [failing.address, fine.address];
    let proxy = Proxy::with(retrying(on_server_errors()), cluster("c", &addresses)).await;
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..10 {
        assert_eq!(
            client
                .send(request("POST", "/", "the whole body"))
                .await
                .status,
            200
        );
    }

    assert_eq!(bodies.load(Ordering::SeqCst), 10);
    assert!(failing.requests() > 0);
}

#[tokio::test]
async fn when_all_tries_fail_the_last_answer_is_the_upstreams() {
    let failing = Upstream::failing(StatusCode::BAD_GATEWAY).await;
    let proxy = Proxy::with(
        retrying(on_server_errors()),
        cluster("c", &[failing.address]),
    )
    .await;

    let got = proxy.get("/").await;

    assert_eq!((got.status.as_u16(), got.body.as_str()), (502, "failed"));
    assert_eq!(failing.requests(), 3);
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "URX");
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let failing = Upstream::failing(StatusCode::BAD_GATEWAY).await;
    let breakers = Thresholds {
        retries: RetryLimit::Budget {
            share: Percent::ZERO,
            min_concurrency: 0,
        },
        ..Thresholds::default()
    };
    let proxy = Proxy::with(
        retrying(on_server_errors()),
        limited(&[failing.address], breakers),
    )
    .await;

    assert_eq!(proxy.get("/").await.status, 502);

    assert_eq!(failing.requests(), 1);
    let snapshot = proxy.data_plane.snapshot();
    assert_eq!(
        snapshot.clusters["c"]
            .stats
            .retries_refused
            .load(Ordering::Relaxed),
        1
    );
}

/// Answers the first request of each connection properly, and resets at the second.
async fn resetting() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
            let _ = stream.read(&mut buffer).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_reset_is_retried_for_idempotent_methods_only() {
    let (address, requests) = resetting().await;
    let proxy = Proxy::with(retrying(default_policy()), cluster("c", &[address])).await;
    let mut client = Client::http1(proxy.address).await;
    assert_eq!(client.get("/").await.status, 200);

    let posted = client.send(request("POST", "/", "body")).await;
    assert_eq!(posted.status, 503);
    assert_eq!(proxy.reports.request(1).await.flags.to_string(), "UC");
    assert_eq!(requests.load(Ordering::SeqCst), 2);

    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.get("/").await.status, 200);
    // Not even a try of the policy's: the connection had been used before.
    assert_eq!(proxy.reports.request(3).await.attempts, 1);
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            let _ = stream.write_all(answer).await;
        }
    });
    let proxy = Proxy::to(cluster("c", &[address])).await;
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..20 {
        assert_eq!(client.send(request("POST", "/", "body")).await.status, 200);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

#[tokio::test]
async fn a_tripped_breaker_answers_503_without_calling_upstream() {
    let upstream = Upstream::hanging().await;
    let breakers = Thresholds {
        max_requests: 1,
        ..Thresholds::default()
    };
    let proxy = Proxy::to(limited(&[upstream.address], breakers)).await;
    let address = proxy.address;
    let held = tokio::spawn(async move { Client::http1(address).await.get("/slow").await });
    upstream.until_requests(1).await;

    let got = proxy.get("/").await;

    assert_eq!(got.status, 503);
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "UO");
    assert_eq!(upstream.requests(), 1);
    held.abort();
}

#[tokio::test]
async fn requests_over_the_connection_limit_wait_for_a_connection() {
    let upstream = Upstream::answering(|_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        text(StatusCode::OK, "fine")
    })
    .await;
    let breakers = Thresholds {
        max_connections: 1,
        ..Thresholds::default()
    };
    let proxy = Proxy::to(limited(&[upstream.address], breakers)).await;
    let address = proxy.address;

    let all =
        (0..8).map(|_| tokio::spawn(async move { Client::http1(address).await.get("/").await }));
    for asked in all.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap().status, 200);
    }

    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn the_routes_time_out_ends_the_request_on_both_sides() {
    let upstream = Upstream::hanging().await;
    let forward = Forward {
        timeout: Some(Duration::from_millis(50)),
        ..Forward::to("c")
    };
    let proxy = Proxy::with(forward, cluster("c", &[upstream.address])).await;

    let got = proxy.get("/").await;

    assert_eq!(got.status, 504);
    upstream.until_cancelled(1).await;
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "UT");
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_tried_elsewhere() {
    let (slow, fine) = (Upstream::hanging().await, Upstream::named("fine").await);
    let policy = RetryPolicy {
        per_try_timeout: Some(Duration::from_millis(500)),
        ..on_server_errors()
    };
    let proxy = Proxy::with(
        retrying(policy),
        cluster("c", &[slow.address, fine.address]),
    )
    .await;

    for _ in 0..4 {
        assert_eq!(proxy.get("/").await.body, "fine");
    }

    assert!(slow.requests() > 0);
}

#[tokio::test]
async fn a_failing_endpoint_is_ejected() {
    let failing = Upstream::failing(StatusCode::INTERNAL_SERVER_ERROR).await;
    let fine = Upstream::named("fine").await;
    let config = ClusterConfig {
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: 3,
            max_ejection_percent: Percent::ALL,
            ..OutlierDetection::default()
        }),
        ..cluster("c", &[failing.address, fine.address])
    };
    let proxy = Proxy::to(config).await;
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..30 {
        client.get("/").await;
    }

    assert_eq!((failing.requests(), fine.requests()), (3, 27));
}

#[tokio::test]
async fn an_http2_upstream_that_goes_away_gracefully_costs_no_error() {
    let upstream = Upstream::named("one").await;
    let proxy = Proxy::with(
        retrying(default_policy()),
        cluster("c", &[upstream.address]),
    )
    .await;
    let mut client = Client::http2(proxy.address).await;
    assert_eq!(client.get("/").await.body, "one");
    assert_eq!(client.get("/").await.body, "one");
    assert_eq!(upstream.connections(), 1);

    let many = (0..50).map(|_| request("GET", "/", ""));
    for asked in many {
        assert_eq!(client.send(asked).await.status, 200);
    }

    until(|| upstream.requests() == 52).await;
    assert_eq!(upstream.connections(), 1);
}
