//! Connections to endpoints that begin with a PROXY header.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::config::cluster::{ClusterConfig, Thresholds, Transport};
use weft_proxy::config::health_check::Probe;
use weft_proxy::config::listener::{ListenerConfig, ProxyHeader};
use weft_proxy::config::route::Forward;
use weft_proxy::config::tls::{Anchor, Believed, Shown, UpstreamTls, Versions};
use weft_proxy::proxy_protocol::{Endpoints, Version, encode, encode_local};

use crate::balancing::checked;
use crate::client::Client;
use crate::config::{all_to, cluster, configuration, filter, http, listener, tcp};
use crate::proxy::Proxy;
use crate::upstream::Upstream;

const VERSIONS: [Version; 2] = [Version::V1, Version::V2];

/// HTTP of clients that others announce.
async fn server(upstream: &Upstream) -> Proxy {
    let listener = ListenerConfig {
        proxy_header: Some(ProxyHeader {
            is_optional: false,
            disallowed: vec![],
            timeout: Some(Duration::from_secs(30)),
        }),
        ..listener(filter(http(all_to(Forward::to("up")))))
    };
    let clusters = [cluster("up", &[upstream.address])];
    Proxy::start(configuration([listener], clusters)).await
}

fn announcing(version: Version, server: std::net::SocketAddr) -> ClusterConfig {
    ClusterConfig {
        proxy_protocol: Some(version),
        ..cluster("server", &[server])
    }
}

/// The first connection that is made, and so many bytes of it; no longer waited for than a test may hang.
async fn first_bytes(listener: &TcpListener, count: usize) -> (TcpStream, Vec<u8>) {
    let read = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).await.unwrap();
        (stream, bytes)
    };
    tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .expect("a connection that begins so")
}

/// Two clients take turns; the server knows each by its own address, on a connection of its own.
async fn take_turns(front: &Proxy, server: &Proxy, mut clients: [Client; 2]) {
    let mut connections = BTreeSet::new();
    for index in 0..6 {
        assert_eq!(clients[index % 2].get("/").await.status, 200);
        let asked = front.reports.request(index).await;
        let heard = server.reports.request(index).await;
        assert_eq!(heard.downstream.peer, asked.downstream.peer);
        assert_eq!(heard.downstream.local, front.address);
        connections.insert(heard.downstream.direct_peer);
    }
    assert_eq!(connections.len(), 2, "{connections:?}");
}

#[tokio::test]
async fn clients_of_one_cluster_never_share_a_connection_that_names_one_of_them() {
    let upstream = Upstream::named("up").await;
    for version in VERSIONS {
        let server = server(&upstream).await;
        let front = Proxy::to(announcing(version, server.address)).await;
        let clients = [
            Client::http1(front.address).await,
            Client::http1(front.address).await,
        ];
        take_turns(&front, &server, clients).await;
    }
}

#[tokio::test]
async fn nor_do_they_share_one_of_http2() {
    let upstream = Upstream::named("up").await;
    let server = server(&upstream).await;
    let front = Proxy::to(announcing(Version::V2, server.address)).await;
    let clients = [
        Client::http2(front.address).await,
        Client::http2(front.address).await,
    ];
    take_turns(&front, &server, clients).await;
}

#[tokio::test]
async fn an_idle_connection_of_another_client_makes_room_where_no_more_may_be_made() {
    let upstream = Upstream::named("up").await;
    let server = server(&upstream).await;
    let cluster = ClusterConfig {
        breakers: Thresholds {
            max_connections: 1,
            ..Thresholds::default()
        },
        connect_timeout: Duration::from_secs(30),
        ..announcing(Version::V1, server.address)
    };
    let front = Proxy::to(cluster).await;
    for _ in 0..3 {
        let mut client = Client::http1(front.address).await;
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn the_header_goes_before_tls() {
    let tls = UpstreamTls {
        shows: Shown::Nothing,
        believes: Believed::by(Anchor::Nobody),
        sni: None,
        alpn: vec![],
        versions: Versions::NEWEST,
    };
    for version in VERSIONS {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = ClusterConfig {
            transport: Transport::Tls(Arc::new(tls.clone())),
            ..announcing(version, backend.local_addr().unwrap())
        };
        let front = Proxy::start(configuration([listener(tcp("server"))], [cluster])).await;
        let client = TcpStream::connect(front.address).await.unwrap();
        let header = encode(
            version,
            &Endpoints {
                source: client.local_addr().unwrap(),
                destination: front.address,
            },
        );

        let (_held, heard) = first_bytes(&backend, header.len() + 2).await;

        assert_eq!(heard[..header.len()], header);
        // A handshake record of TLS (RFC 8446 §5.1).
        assert_eq!(heard[header.len()..], [22, 3]);
    }
}

#[tokio::test]
async fn a_health_check_speaks_of_nobody_in_version_2_and_of_itself_in_version_1() {
    for version in VERSIONS {
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = backend.local_addr().unwrap();
        let probe = Probe::Tcp {
            send: b"ping".as_slice().into(),
            receive: vec![],
        };
        let cluster = ClusterConfig {
            health_checks: vec![checked(probe)],
            ..announcing(version, address)
        };
        let _front = Proxy::to(cluster).await;

        let (stream, first) = first_bytes(&backend, 16).await;

        match version {
            Version::V1 => {
                let own = Endpoints {
                    source: stream.peer_addr().unwrap(),
                    destination: address,
                };
                assert_eq!(first, encode(version, &own)[..16]);
            }
            Version::V2 => assert_eq!(first, encode_local()),
        }
    }
}
