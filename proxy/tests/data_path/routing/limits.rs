//! How long requests may take.

use serde_json::{Value, json};

use super::{get_with, host, served, shown};
use crate::client::{Client, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::Upstream;

async fn hanging(route: Value) -> (Proxy, Upstream) {
    let mut route = route;
    route["cluster"] = "c".into();
    let upstream = Upstream::hanging().await;
    let config = served(host(json!([{"match": {"prefix": "/"}, "route": route}])));
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;
    (proxy, upstream)
}

#[tokio::test]
async fn the_duration_of_a_stream_goes_before_the_routes_time_out() {
    let (proxy, upstream) = hanging(json!({"timeout": "0.01s",
        "max_stream_duration": {"max_stream_duration": "0.2s"}}))
    .await;

    let got = proxy.get("/").await;

    assert_eq!(
        (got.status.as_u16(), got.body.as_str()),
        (504, "downstream duration timeout")
    );
    upstream.until_cancelled(1).await;
    // As in Envoy, which has no flag for it.
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "-");
}

#[tokio::test]
async fn the_chains_longest_duration_holds_where_a_route_says_nothing() {
    let mut config = served(host(
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]),
    ));
    config.max_stream_duration = Some(std::time::Duration::from_millis(50));
    let upstream = Upstream::hanging().await;
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;

    assert_eq!(proxy.get("/").await.status, 504);
}

#[tokio::test]
async fn a_grpc_caller_sets_its_own_limit() {
    let (proxy, _upstream) =
        hanging(json!({"max_stream_duration": {"grpc_timeout_header_max": "0s"}})).await;
    let mut asked = request("POST", "/books.Books/Get", "");
    let headers = asked.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    headers.insert("grpc-timeout", "50m".parse().unwrap());

    let got = Client::http2(proxy.address).await.send(asked).await;

    assert_eq!(got.header("grpc-status"), Some("4"));
    assert_eq!(
        got.header("grpc-message"),
        Some("downstream duration timeout")
    );
}

#[tokio::test]
async fn a_caller_inside_may_wait_shorter_than_the_route() {
    let mut config = served(host(
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "c"}}]),
    ));
    config.internal_addresses = vec!["127.0.0.0/8".parse().unwrap()];
    config.use_remote_address = true;
    let upstream = Upstream::hanging().await;
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;

    let asked = [("x-envoy-upstream-rq-timeout-ms", "50")];
    let got = get_with(&proxy, "/", &asked).await;

    assert_eq!(
        (got.status.as_u16(), got.body.as_str()),
        (504, "upstream request timeout")
    );
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "UT");
}

#[tokio::test]
async fn the_upstream_is_told_how_long_it_has_and_who_asks() {
    let mut config = served(host(json!([{"match": {"prefix": "/"},
        "route": {"cluster": "c", "timeout": "7s"}}])));
    config.internal_addresses = vec!["127.0.0.0/8".parse().unwrap()];
    config.use_remote_address = true;
    let upstream = Upstream::echoing().await;
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;

    let inside = get_with(&proxy, "/", &[("x-envoy-retry-on", "5xx")]).await;
    let outside = get_with(
        &proxy,
        "/",
        &[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-envoy-internal", "true"),
        ],
    )
    .await;

    assert_eq!(shown(&inside, "x-envoy-expected-rq-timeout-ms"), ["7000"]);
    assert_eq!(shown(&inside, "x-envoy-internal"), ["true"]);
    assert!(shown(&inside, "x-envoy-retry-on").is_empty());
    assert!(shown(&outside, "x-envoy-internal").is_empty());
}
