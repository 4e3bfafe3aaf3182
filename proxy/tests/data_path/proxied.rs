//! Connections that another proxy passes on with a PROXY header.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_proxy::config::listener::{ChainMatch, FilterChain, ListenerConfig, ProxyHeader};
use weft_proxy::config::route::Forward;
use weft_proxy::proxy_protocol::{Endpoints, Version, encode};

use crate::config::{LISTENER, all_to, chain, cluster, configuration, filter, http, listener, tcp};
use crate::proxy::Proxy;
use crate::upstream::Upstream;

const CLIENT: &str = "192.0.2.7:40000";

fn header(version: Version) -> Vec<u8> {
    let endpoints = Endpoints {
        source: CLIENT.parse().unwrap(),
        destination: "198.51.100.1:443".parse().unwrap(),
    };
    encode(version, &endpoints)
}

/// Everything is HTTP to one upstream; a client in 192.0.2.0/24 gets another chain.
async fn proxy(upstream: &Upstream, is_optional: bool, disallowed: &[Version]) -> Proxy {
    let of_client = FilterChain {
        matches: ChainMatch {
            source_prefixes: vec!["192.0.2.0/24".parse().unwrap()],
            destination_port: Some(443),
            direct_source_prefixes: vec!["127.0.0.0/8".parse().unwrap()],
            ..ChainMatch::default()
        },
        ..chain(filter(http(all_to(Forward::to("up")))))
    };
    let listener = ListenerConfig {
        proxy_header: Some(ProxyHeader {
            is_optional,
            disallowed: disallowed.to_vec(),
            timeout: Some(std::time::Duration::from_secs(30)),
        }),
        filter_chains: vec![of_client],
        ..listener(tcp("up"))
    };
    let clusters = [cluster("up", &[upstream.address])];
    Proxy::start(configuration([listener], clusters)).await
}

/// What is answered to a header, byte by byte, and a request.
async fn answer(address: SocketAddr, header: &[u8]) -> String {
    let mut caller = TcpStream::connect(address).await.unwrap();
    for byte in header {
        if caller.write_all(&[*byte]).await.is_err() {
            return String::new();
        }
    }
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let _ = caller.write_all(request).await;
    let mut heard = vec![];
    let _ = caller.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn the_client_that_is_named_is_the_client() {
    let upstream = Upstream::named("up").await;
    let proxy = proxy(&upstream, false, &[]).await;
    for (index, version) in [Version::V1, Version::V2].into_iter().enumerate() {
        let said = answer(proxy.address, &header(version)).await;

        assert!(said.starts_with("HTTP/1.1 200"), "{version:?}: {said}");
        let report = proxy.reports.request(index).await;
        assert_eq!(report.downstream.peer, CLIENT.parse().unwrap());
        assert_eq!(report.downstream.local.port(), 443);
    }
}

#[tokio::test]
async fn a_connection_without_a_header_is_served_only_where_that_is_allowed() {
    let upstream = Upstream::named("up").await;

    let strict = proxy(&upstream, false, &[]).await;
    assert_eq!(answer(strict.address, b"").await, "");
    let lenient = proxy(&upstream, true, &[]).await;
    assert!(
        answer(lenient.address, b"")
            .await
            .starts_with("HTTP/1.1 200")
    );

    let refused = &strict.data_plane.snapshot().listeners[LISTENER]
        .live
        .proxy_headers_refused;
    assert_eq!(refused.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_not_valid_or_not_allowed_is_refused() {
    let upstream = Upstream::named("up").await;
    let proxy = proxy(&upstream, false, &[Version::V1]).await;

    assert_eq!(answer(proxy.address, &header(Version::V1)).await, "");
    assert_eq!(answer(proxy.address, b"PROXY TCP9 x\r\n").await, "");
    let good = answer(proxy.address, &header(Version::V2)).await;
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
}
