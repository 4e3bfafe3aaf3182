//! How long connections are used: so many requests, so long, and as long as the other side lives.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use weft_proxy::config::cluster::{ClusterConfig, UpstreamProtocol};
use weft_proxy::config::http::{Http2Options, HttpConfig};
use weft_proxy::config::lifespan::Lifespan;
use weft_proxy::config::route::Forward;

use crate::client::{Client, Got};
use crate::config::{all_to, cluster, http};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, until};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame of SETTINGS without any.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn serving(lifespan: Lifespan) -> (Upstream, Proxy) {
    let upstream = Upstream::named("shop").await;
    let config = HttpConfig {
        lifespan,
        ..http(all_to(Forward::to("shop")))
    };
    let proxy = Proxy::serving(config, [cluster("shop", &[upstream.address])]).await;
    (upstream, proxy)
}

fn requests(count: u32) -> Lifespan {
    Lifespan {
        max_requests: Some(count),
        ..Lifespan::default()
    }
}

fn lasting(duration: Duration) -> Lifespan {
    Lifespan {
        max_duration: Some(duration),
        ..Lifespan::default()
    }
}

fn says_close(got: &Got) -> bool {
    got.header("connection") == Some("close")
}

/// Waits until the connection takes no more requests.
async fn closed(client: &Client) {
    until(|| match client {
        Client::Http1(sender) => sender.is_closed(),
        Client::Http2(sender) => sender.is_closed(),
    })
    .await;
}

#[tokio::test]
async fn a_connection_of_http1_carries_no_more_requests_than_it_may() {
    let (_upstream, proxy) = serving(requests(3)).await;
    let mut client = Client::http1(proxy.address).await;

    assert!(!says_close(&client.get("/").await));
    assert!(!says_close(&client.get("/").await));
    assert!(says_close(&client.get("/").await));

    closed(&client).await;
}

#[tokio::test]
async fn a_connection_of_http2_carries_no_more_requests_than_it_may() {
    let (_upstream, proxy) = serving(requests(2)).await;
    let mut client = Client::http2(proxy.address).await;

    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.get("/").await.status, 200);

    closed(&client).await;
}

#[tokio::test]
async fn a_connection_to_an_upstream_of_http2_that_is_worn_makes_room_for_the_next() {
    let upstream = Upstream::named("fine").await;
    let mut config = ClusterConfig {
        protocol: UpstreamProtocol::Http2,
        max_requests_per_connection: Some(2),
        ..cluster("c", &[upstream.address])
    };
    config.breakers.max_connections = 1;
    let proxy = Proxy::to(config).await;
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }

    assert_eq!(upstream.connections(), 5);
    let stats = &proxy.data_plane.snapshot().clusters["c"].stats;
    assert_eq!(stats.connections_worn.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn an_old_connection_is_told_with_its_next_response() {
    let lifespan = Lifespan {
        waits_for_response: true,
        ..lasting(Duration::from_millis(20))
    };
    let (_upstream, proxy) = serving(lifespan).await;
    let mut client = Client::http1(proxy.address).await;

    let told = async { while !says_close(&client.get("/").await) {} };
    timeout(PATIENCE, told).await.expect("in time");

    closed(&client).await;
}

#[tokio::test]
async fn an_old_connection_without_requests_is_closed() {
    let (_upstream, proxy) = serving(lasting(Duration::from_millis(20))).await;
    let http2 = Client::http2(proxy.address).await;
    let mut silent = TcpStream::connect(proxy.address).await.unwrap();
    silent
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();

    closed(&http2).await;
    let mut answer = vec![];
    timeout(PATIENCE, silent.read_to_end(&mut answer))
        .await
        .expect("in time")
        .unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

fn asking() -> Http2Options {
    Http2Options {
        keepalive_interval: Some(Duration::from_millis(50)),
        keepalive_timeout: Some(Duration::from_millis(200)),
        ..Http2Options::default()
    }
}

/// Reads until the other side closes; says whether it asked for a sign of life (PING, RFC 9113 §6.7).
async fn was_asked(stream: &mut TcpStream) -> bool {
    let mut read = vec![];
    let ended = timeout(PATIENCE, stream.read_to_end(&mut read)).await;
    let _ = ended.expect("the connection is closed in time");
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0];
    read.windows(ping.len()).any(|bytes| bytes == ping)
}

#[tokio::test]
async fn a_client_of_http2_that_gives_no_sign_of_life_is_left() {
    let upstream = Upstream::named("shop").await;
    let config = HttpConfig {
        http2: asking(),
        ..http(all_to(Forward::to("shop")))
    };
    let proxy = Proxy::serving(config, [cluster("shop", &[upstream.address])]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();

    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&SETTINGS).await.unwrap();

    assert!(was_asked(&mut stream).await);
}

#[tokio::test]
async fn a_client_of_http2_that_gives_signs_of_life_is_kept() {
    let upstream = Upstream::named("shop").await;
    let config = HttpConfig {
        http2: asking(),
        ..http(all_to(Forward::to("shop")))
    };
    let proxy = Proxy::serving(config, [cluster("shop", &[upstream.address])]).await;
    let mut client = Client::http2(proxy.address).await;
    assert_eq!(client.get("/").await.status, 200);

    // Longer than without any sign of life.
    let left = timeout(Duration::from_millis(800), closed(&client)).await;

    assert!(left.is_err());
    assert_eq!(client.get("/").await.status, 200);
}

/// An upstream of HTTP/2 that says hello, and nothing more.
async fn speechless() -> (SocketAddr, tokio::task::JoinHandle<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&SETTINGS).await.unwrap();
        was_asked(&mut stream).await
    });
    (address, asked)
}

#[tokio::test]
async fn an_upstream_of_http2_that_gives_no_sign_of_life_is_left() {
    let (address, asked) = speechless().await;
    let shop = ClusterConfig {
        protocol: UpstreamProtocol::Http2,
        http2: asking(),
        ..cluster("shop", &[address])
    };
    let proxy = Proxy::to(shop).await;

    let got = proxy.get("/").await;

    assert_eq!(got.status, 503);
    assert!(asked.await.unwrap());
}

#[tokio::test]
async fn a_connection_of_http2_that_was_silent_for_too_long_is_not_used_again() {
    let upstream = Upstream::named("shop").await;
    let silent_for = |longest_silence| ClusterConfig {
        protocol: UpstreamProtocol::Http2,
        http2: Http2Options {
            longest_silence: Some(longest_silence),
            ..Http2Options::default()
        },
        ..cluster("shop", &[upstream.address])
    };
    let patient = Proxy::to(silent_for(Duration::from_secs(3600))).await;
    let mut client = Client::http1(patient.address).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(upstream.connections(), 1);

    let impatient = Proxy::to(silent_for(Duration::from_millis(1))).await;
    let mut client = Client::http1(impatient.address).await;
    let asking = async {
        // The first is the one of the patient proxy.
        while upstream.connections() < 3 {
            assert_eq!(client.get("/").await.status, 200);
        }
    };

    timeout(PATIENCE, asking).await.expect("a connection anew");
}
