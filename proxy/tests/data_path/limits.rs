//! How long a request may take and be silent; and what such limits must not touch.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weft_proxy::config::route::Forward;

use crate::client::{Client, request};
use crate::config::{all_to, cluster, http};
use crate::proxy::Proxy;
use crate::upstream::{Body, Upstream, text};

type Pieces = mpsc::Sender<&'static str>;

/// A body that is sent piece by piece.
fn streamed() -> (Pieces, Body) {
    let (pieces, receiver) = mpsc::channel(4);
    let frames = ReceiverStream::new(receiver)
        .map(|piece: &str| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))));
    (pieces, BodyExt::boxed(StreamBody::new(frames)))
}

/// Sends one piece of a response, and no more.
async fn pausing() -> Upstream {
    Upstream::answering(|_| async {
        let (pieces, body) = streamed();
        pieces.send("begun").await.unwrap();
        tokio::spawn(async move { pieces.closed().await });
        Response::new(body)
    })
    .await
}

fn post(body: Body) -> http::Request<Body> {
    request("POST", "/", "").map(|_| body)
}

fn within(limit: Duration) -> Forward {
    Forward {
        timeout: Some(limit),
        ..Forward::to("c")
    }
}

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn the_time_out_of_a_route_ends_a_response_that_has_begun() {
    let upstream = pausing().await;
    let proxy = Proxy::with(within(SHORT), cluster("c", &[upstream.address])).await;

    let got = Client::http1(proxy.address)
        .await
        .try_send(request("GET", "/", ""))
        .await;

    assert!(got.is_err(), "{got:?}");
    let report = proxy.reports.request(0).await;
    assert_eq!(
        (report.response_code, report.flags.to_string().as_str()),
        (200, "UT")
    );
}

#[tokio::test]
async fn the_time_out_of_a_route_begins_when_the_request_has_ended() {
    let upstream = Upstream::echoing().await;
    let proxy = Proxy::with(within(SHORT), cluster("c", &[upstream.address])).await;
    let (pieces, body) = streamed();
    let mut client = Client::http2(proxy.address).await;

    let asked = tokio::spawn(async move { client.start(post(body)).await.unwrap().status() });
    for _ in 0..4 {
        tokio::time::sleep(SHORT / 2).await;
        pieces.send("piece").await.unwrap();
    }
    drop(pieces);

    assert_eq!(asked.await.unwrap(), 200);
}

#[tokio::test]
async fn a_response_that_pauses_for_too_long_ends() {
    let upstream = pausing().await;
    let mut config = http(all_to(Forward::to("c")));
    config.stream_idle_timeout = Some(SHORT);
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;

    let got = Client::http1(proxy.address)
        .await
        .try_send(request("GET", "/", ""))
        .await;

    assert!(got.is_err(), "{got:?}");
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "SI");
}

#[tokio::test]
async fn a_response_that_goes_on_does_not_end_however_long_it_takes() {
    let upstream = Upstream::answering(|_| async {
        let (pieces, body) = streamed();
        tokio::spawn(async move {
            // Long in all; each pause is far from the limit, also on a busy machine.
            for _ in 0..12 {
                tokio::time::sleep(SHORT / 8).await;
                pieces.send("x").await.unwrap();
            }
        });
        Response::new(body)
    })
    .await;
    let mut config = http(all_to(Forward::to("c")));
    config.stream_idle_timeout = Some(SHORT);
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;

    assert_eq!(proxy.get("/").await.body, "x".repeat(12));
}

#[tokio::test]
async fn an_exchange_where_nobody_says_anything_ends() {
    let upstream = Upstream::hanging().await;
    let forward = Forward {
        idle_timeout: Some(SHORT),
        ..Forward::to("c")
    };
    let proxy = Proxy::with(forward, cluster("c", &[upstream.address])).await;

    assert_eq!(proxy.get("/").await.status, 504);

    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "SI");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_told_so() {
    let upstream = Upstream::echoing().await;
    let mut config = http(all_to(Forward::to("c")));
    config.request_timeout = Some(SHORT);
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;
    let (pieces, body) = streamed();

    let response = Client::http2(proxy.address)
        .await
        .start(post(body))
        .await
        .unwrap();

    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    drop(pieces);
}

#[tokio::test]
async fn both_sides_of_a_stream_talk_at_the_same_time() {
    let upstream = Upstream::answering(|request| async {
        let (pieces, body) = streamed();
        tokio::spawn(async move {
            let mut asked = request.into_body();
            while let Some(Ok(_)) = asked.frame().await {
                pieces.send("heard").await.unwrap();
            }
        });
        Response::new(body)
    })
    .await;
    let proxy = Proxy::with(within(SHORT), cluster("c", &[upstream.address])).await;
    let (pieces, body) = streamed();
    let mut client = Client::http2(proxy.address).await;
    pieces.send("one").await.unwrap();
    let mut answer = client.start(post(body)).await.unwrap().into_body();

    for _ in 0..4 {
        let heard = answer.frame().await.unwrap().unwrap();
        assert_eq!(heard.data_ref().unwrap(), "heard");
        tokio::time::sleep(SHORT / 2).await;
        pieces.send("more").await.unwrap();
    }
}

#[tokio::test]
async fn a_large_body_arrives_whole_and_is_not_kept() {
    const MEGABYTES: usize = 4;
    let upstream = Upstream::answering(|request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(StatusCode::OK, body.len().to_string())
    })
    .await;
    let proxy = Proxy::to(cluster("c", &[upstream.address])).await;
    let body: &'static str = String::leak("x".repeat(MEGABYTES << 20));

    for mut client in [
        Client::http1(proxy.address).await,
        Client::http2(proxy.address).await,
    ] {
        let got = client.send(request("PUT", "/", body)).await;
        assert_eq!(got.body, (MEGABYTES << 20).to_string());
    }
    assert_eq!(
        proxy.reports.request(0).await.request_bytes,
        (MEGABYTES << 20) as u64
    );
}
