//! Bytes of TCP that are carried in HTTP, to a proxy further on: by CONNECT and by POST, in both versions.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_proxy::config::cluster::{ClusterConfig, UpstreamProtocol};
use weft_proxy::config::headers::HeaderMutations;
use weft_proxy::config::listener::{NetworkFilter, TcpConfig};
use weft_proxy::config::tunnel::{TunnelConfig, TunnelMethod};
use weft_proxy::telemetry::access_log::format::Template;
use weft_proxy::telemetry::report::ResponseFlags;

use crate::config::{cluster, configuration, listener, tcp};
use crate::proxy::Proxy;
use crate::tunnels::agreeing;
use crate::upstream::{Upstream, text};

const VERSIONS: [UpstreamProtocol; 2] = [UpstreamProtocol::Http1, UpstreamProtocol::Http2];

/// A proxy of TCP that asks an upstream for tunnels.
async fn through(upstream: SocketAddr, protocol: UpstreamProtocol, method: TunnelMethod) -> Proxy {
    let NetworkFilter::Tcp(config) = tcp("c") else {
        unreachable!("`tcp` makes a filter of TCP")
    };
    let config = TcpConfig {
        tunnel: Some(Arc::new(TunnelConfig {
            hostname: Template::parse("shop.test:%DOWNSTREAM_LOCAL_PORT%").unwrap(),
            method,
            headers: HeaderMutations::default(),
        })),
        ..(*config).clone()
    };
    let cluster = ClusterConfig {
        protocol,
        ..cluster("c", &[upstream])
    };
    let listener = listener(NetworkFilter::Tcp(Arc::new(config)));
    Proxy::start(configuration([listener], [cluster])).await
}

fn post() -> TunnelMethod {
    TunnelMethod::Post {
        path: "/tunnel".into(),
    }
}

/// What comes back for `ping`, and then until the server ends.
async fn ping(proxy: &Proxy) -> (String, String) {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    (String::from_utf8_lossy(&heard).into_owned(), rest)
}

#[tokio::test]
async fn a_client_of_tcp_is_carried_in_a_connect() {
    for protocol in VERSIONS {
        let upstream = agreeing(StatusCode::OK, |request| {
            assert_eq!(request.method(), Method::CONNECT);
            let authority = request.uri().authority().unwrap().as_str();
            let port = authority.strip_prefix("shop.test:").unwrap();
            assert_ne!(port.parse::<u16>(), Ok(0));
        })
        .await;
        let proxy = through(upstream.address, protocol, TunnelMethod::Connect).await;

        assert_eq!(ping(&proxy).await, ("PING".into(), String::new()));

        let report = proxy.reports.closed(0).await;
        assert_eq!((report.received_bytes, report.sent_bytes), (4, 4));
        assert_eq!(report.upstream.unwrap().address, upstream.address);
    }
}

#[tokio::test]
async fn a_client_of_tcp_is_carried_in_the_bodies_of_a_post() {
    for protocol in VERSIONS {
        let upstream = Upstream::answering(|request| async move {
            assert_eq!(request.method(), Method::POST);
            assert_eq!(request.uri().path(), "/tunnel");
            if request.version() == Version::HTTP_11 {
                assert!(request.headers().contains_key("host"));
            }
            let body = request.into_body();
            let mut response = text(StatusCode::OK, "");
            *response.body_mut() = body.map_err(|error| panic!("{error}")).boxed();
            response
        })
        .await;
        let proxy = through(upstream.address, protocol, post()).await;

        assert_eq!(ping(&proxy).await, ("ping".into(), String::new()));
    }
}

#[tokio::test]
async fn a_client_is_closed_where_the_upstream_wants_no_tunnel() {
    for method in [TunnelMethod::Connect, post()] {
        let upstream = Upstream::failing(StatusCode::FORBIDDEN).await;
        let proxy = through(upstream.address, UpstreamProtocol::Http1, method).await;

        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();

        assert_eq!(heard, b"");
        let report = proxy.reports.closed(0).await;
        let failure = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        assert!(report.flags.contains(failure), "{:?}", report.flags);
        let reason = report.reason.unwrap();
        assert!(reason.contains("the upstream answers 403"), "{reason}");
    }
}
