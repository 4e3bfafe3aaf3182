//! Connections made ahead of need: how many there are for the requests in flight.

use http::StatusCode;
use weft_proxy::config::cluster::{ClusterConfig, Thresholds, UpstreamProtocol};

use crate::client::{Client, get, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::{Upstream, until};

fn twice(upstream: &Upstream) -> ClusterConfig {
    ClusterConfig {
        preconnect_ratio: Some(2.0),
        ..cluster("c", &[upstream.address])
    }
}

async fn ask_in_vain(proxy: &Proxy) -> tokio::task::JoinHandle<()> {
    let mut client = Client::http1(proxy.address).await;
    tokio::spawn(async move {
        let _ = client
            .start(request("GET", "/", "").map(http_body_util::BodyExt::boxed))
            .await;
    })
}

#[tokio::test]
async fn a_ratio_of_two_means_two_connections_for_each_request_in_flight() {
    let upstream = Upstream::hanging().await;
    let proxy = Proxy::to(twice(&upstream)).await;

    let _first = ask_in_vain(&proxy).await;
    until(|| upstream.connections() == 2).await;
    let _second = ask_in_vain(&proxy).await;
    until(|| upstream.connections() == 4).await;

    upstream.until_requests(2).await;
    assert_eq!(upstream.connections(), 4);
}

#[tokio::test]
async fn without_a_ratio_there_are_no_more_connections_than_requests() {
    let upstream = Upstream::hanging().await;
    let proxy = Proxy::to(cluster("c", &[upstream.address])).await;

    let _first = ask_in_vain(&proxy).await;
    upstream.until_requests(1).await;
    let _second = ask_in_vain(&proxy).await;
    upstream.until_requests(2).await;

    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn connections_made_ahead_are_used_by_later_requests() {
    let upstream = Upstream::named("a").await;
    let proxy = Proxy::to(twice(&upstream)).await;
    // One client is served by one worker, and connections belong to workers.
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, StatusCode::OK);
    }
    until(|| upstream.connections() == 2).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, StatusCode::OK);
    }

    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn the_limit_of_connections_bounds_those_made_ahead_and_costs_no_request() {
    let upstream = Upstream::named("a").await;
    let limited = ClusterConfig {
        breakers: Thresholds {
            max_connections: 1,
            ..Thresholds::default()
        },
        ..twice(&upstream)
    };
    let proxy = Proxy::to(limited).await;

    for _ in 0..5 {
        assert_eq!(get(proxy.address, "/").await.status, StatusCode::OK);
    }

    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn requests_that_share_a_connection_need_none_ahead() {
    let upstream = Upstream::named("a").await;
    let shared = ClusterConfig {
        protocol: UpstreamProtocol::Http2,
        ..twice(&upstream)
    };
    let proxy = Proxy::to(shared).await;
    // One client is served by one worker, and connections belong to workers.
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, StatusCode::OK);
    }

    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_is_made_ahead_where_that_of_http2_can_carry_no_more() {
    let upstream = Upstream::hanging().await;
    let worn = ClusterConfig {
        protocol: UpstreamProtocol::Http2,
        max_requests_per_connection: Some(1),
        ..twice(&upstream)
    };
    let proxy = Proxy::to(worn).await;

    let _first = ask_in_vain(&proxy).await;
    until(|| upstream.connections() == 2).await;
    upstream.until_requests(1).await;

    assert_eq!((upstream.requests(), upstream.connections()), (1, 2));
}

#[tokio::test]
async fn connections_are_made_ahead_to_the_endpoints_that_are_next() {
    let upstreams = [
        Upstream::hanging().await,
        Upstream::hanging().await,
        Upstream::hanging().await,
        Upstream::hanging().await,
    ];
    let addresses = upstreams.each_ref().map(|upstream| upstream.address);
    let proxy = Proxy::to(ClusterConfig {
        predictive_preconnect_ratio: Some(2.0),
        ..cluster("c", &addresses)
    })
    .await;
    let connected = || {
        upstreams
            .iter()
            .filter(|each| each.connections() == 1)
            .count()
    };

    let _first = ask_in_vain(&proxy).await;

    // Two beside the request's own: as in Envoy, that one is not counted.
    until(|| connected() == 3).await;
    let asked = || upstreams.iter().map(Upstream::requests).sum::<usize>();
    until(|| asked() == 1).await;
}
