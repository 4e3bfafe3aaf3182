//! Retries: what is worth one, how long they wait, and what upstreams are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{get_with, host, served};
use crate::client::{Client, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::{Body, Upstream, text, until};

/// Answers the first request so, and all others with 200; remembers what they were asked.
async fn first(
    answer: impl Fn() -> http::Response<Body> + Send + Sync + 'static,
) -> (Upstream, Arc<Mutex<Vec<(http::HeaderMap, usize)>>>) {
    let heard = Arc::new(Mutex::new(vec![]));
    let told = Arc::clone(&heard);
    let answer = Arc::new(answer);
    let upstream = Upstream::answering(move |request| {
        let (told, answer) = (Arc::clone(&told), Arc::clone(&answer));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes().len());
            let mut told = told.lock();
            told.push((parts.headers, body.unwrap_or_default()));
            match told.len() {
                1 => answer(),
                _ => text(StatusCode::OK, "fine"),
            }
        }
    })
    .await;
    (upstream, heard)
}

fn retrying(policy: Value) -> Value {
    host(json!([{"match": {"prefix": "/"}, "route": {"cluster": "c", "retry_policy": policy}}]))
}

async fn proxy(config: Value, upstream: &Upstream) -> Proxy {
    Proxy::serving(served(config), [cluster("c", &[upstream.address])]).await
}

fn with_header(
    status: StatusCode,
    name: &'static str,
    value: &'static str,
) -> http::Response<Body> {
    let mut response = text(status, "");
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

#[tokio::test]
async fn a_header_of_the_response_makes_it_worth_another_try() {
    let policy = json!({"retry_on": "retriable-headers",
        "retriable_headers": [{"name": "x-again", "present_match": true}]});
    let (upstream, _) = first(|| with_header(StatusCode::OK, "x-again", "1")).await;

    let got = proxy(retrying(policy), &upstream).await.get("/").await;

    assert_eq!((got.body.as_str(), upstream.requests()), ("fine", 2));
}

#[tokio::test]
async fn a_request_that_a_policy_is_not_for_is_not_retried() {
    let policy = json!({"retry_on": "5xx",
        "retriable_request_headers": [{"name": "x-safe", "present_match": true}]});
    let failing = Upstream::failing(StatusCode::BAD_GATEWAY).await;
    let proxy = proxy(retrying(policy), &failing).await;

    assert_eq!(proxy.get("/").await.status, 502);
    assert_eq!(failing.requests(), 1);
    assert_eq!(get_with(&proxy, "/", &[("x-safe", "1")]).await.status, 502);
    assert_eq!(failing.requests(), 3);
}

#[tokio::test]
async fn what_another_proxys_rate_limit_refused_is_not_retried_unasked() {
    let refused = || {
        with_header(
            StatusCode::SERVICE_UNAVAILABLE,
            "x-envoy-ratelimited",
            "true",
        )
    };
    let (unasked, _) = first(refused).await;
    let (asked, _) = first(refused).await;
    let words = |words: &str| retrying(json!({"retry_on": words}));

    let left = proxy(words("5xx"), &unasked).await.get("/").await;
    let again = proxy(words("envoy-ratelimited"), &asked)
        .await
        .get("/")
        .await;

    assert_eq!((left.status.as_u16(), unasked.requests()), (503, 1));
    assert_eq!((again.status.as_u16(), asked.requests()), (200, 2));
}

#[tokio::test]
async fn a_retry_waits_as_long_as_the_upstream_asks() {
    let policy = json!({"retry_on": "5xx", "rate_limited_retry_back_off":
        {"reset_headers": [{"name": "retry-after", "format": "SECONDS"}]}});
    let asking = || with_header(StatusCode::SERVICE_UNAVAILABLE, "retry-after", "1");
    let (upstream, _) = first(asking).await;
    let proxy = proxy(retrying(policy), &upstream).await;
    let started = std::time::Instant::now();

    assert_eq!(proxy.get("/").await.status, 200);

    // No upper bound: the machine may be slow, the proxy must not be early.
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_body_is_sent_again_up_to_the_routes_bound() {
    let bounded = |bytes: u64| {
        host(
            json!([{"match": {"prefix": "/"}, "request_body_buffer_limit": bytes,
            "route": {"cluster": "c", "retry_policy": {"retry_on": "5xx"}}}]),
        )
    };
    let failing = || text(StatusCode::SERVICE_UNAVAILABLE, "");
    let (kept, heard) = first(failing).await;
    let (lost, _) = first(failing).await;
    let body: &'static str = Box::leak("x".repeat(300 * 1024).into_boxed_str());
    let post = |address| async move {
        Client::http1(address)
            .await
            .send(request("POST", "/", body))
            .await
    };

    let again = post(proxy(bounded(512 * 1024), &kept).await.address).await;
    let once = post(proxy(bounded(64 * 1024), &lost).await.address).await;

    assert_eq!(again.status, 200);
    assert_eq!(
        heard
            .lock()
            .iter()
            .map(|(_, bytes)| *bytes)
            .collect::<Vec<_>>(),
        [body.len(); 2]
    );
    assert_eq!((once.status.as_u16(), lost.requests()), (503, 1));
}

#[tokio::test]
async fn callers_inside_ask_for_retries_and_those_outside_do_not() {
    let mut config = served(host(
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]),
    ));
    config.internal_addresses = vec!["10.0.0.0/8".parse().unwrap()];
    let failing = Upstream::failing(StatusCode::BAD_GATEWAY).await;
    let proxy = Proxy::serving(config, [cluster("c", &[failing.address])]).await;
    let asking = |from| {
        [
            ("x-forwarded-for", from),
            ("x-envoy-retry-on", "gateway-error"),
            ("x-envoy-max-retries", "2"),
        ]
    };

    get_with(&proxy, "/", &asking("10.1.2.3")).await;
    assert_eq!(failing.requests(), 3);
    get_with(&proxy, "/", &asking("192.0.2.1")).await;
    get_with(&proxy, "/", &asking("10.1.2.3, 10.1.2.4")).await;
    assert_eq!(failing.requests(), 5);
}

#[tokio::test]
async fn a_try_that_takes_too_long_goes_on_beside_the_next() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let release = Arc::new(tokio::sync::Notify::new());
    let released = Arc::clone(&release);
    // The first waits until the second is there; the second never answers.
    let upstream = Upstream::answering(move |_| {
        let (counted, released) = (Arc::clone(&counted), Arc::clone(&released));
        async move {
            if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                released.notify_one();
                return std::future::pending().await;
            }
            released.notified().await;
            text(StatusCode::OK, "the first")
        }
    })
    .await;
    let config = host(json!([{"match": {"prefix": "/"}, "route": {"cluster": "c",
        "hedge_policy": {"hedge_on_per_try_timeout": true},
        "retry_policy": {"retry_on": "connect-failure", "per_try_timeout": "0.1s"}}}]));
    let proxy = proxy(config, &upstream).await;

    let mut client = Client::http1(proxy.address).await;
    let got = client.send(request("POST", "/", "body")).await;

    assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "the first"));
    assert_eq!(upstream.requests(), 2);
    upstream.until_cancelled(1).await;
    assert_eq!(proxy.reports.request(0).await.attempts, 2);
}

#[tokio::test]
async fn a_silent_try_is_tried_again_and_the_upstream_is_told_why() {
    let heard = Arc::new(Mutex::new(vec![]));
    let told = Arc::clone(&heard);
    let upstream = Upstream::answering(move |request| {
        let told = Arc::clone(&told);
        async move {
            told.lock().push(request.headers().clone());
            std::future::pending().await
        }
    })
    .await;
    let config = json!({"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"],
        "include_request_attempt_count": true, "include_attempt_count_in_response": true,
        "include_is_timeout_retry_header": true,
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c",
            "retry_policy": {"retry_on": "5xx", "per_try_idle_timeout": "0.1s"}}}]}]});
    let proxy = proxy(config, &upstream).await;

    let got = proxy.get("/").await;

    assert_eq!(
        (got.status.as_u16(), got.body.as_str()),
        (504, "upstream request timeout")
    );
    assert_eq!(got.header("x-envoy-attempt-count"), Some("2"));
    until(|| heard.lock().len() == 2).await;
    let heard = heard.lock().clone();
    assert_eq!(heard[1]["x-envoy-is-timeout-retry"], "true");
    assert_eq!(heard[1]["x-envoy-attempt-count"], "2");
    assert!(!heard[0].contains_key("x-envoy-is-timeout-retry"));
    let left = |headers: &http::HeaderMap| -> u64 {
        headers["x-envoy-expected-rq-timeout-ms"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(left(&heard[0]) == 15_000 && left(&heard[1]) <= 14_900);
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "URX,UT");
}
