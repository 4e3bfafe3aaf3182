//! CONNECT, extended CONNECT and upgrades in all pairs of versions: what is asked of the upstream, and that bytes
//! get through both ways.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::config::cluster::UpstreamProtocol;
use weft_proxy::config::http::HttpConfig;
use weft_proxy::config::retry::{RetryConditions, RetryPolicy};
use weft_proxy::config::route::{Forward, PathMatch, Route, RouteAction, RouteMatch};
use weft_proxy::config::upgrade::{CONNECT, RouteUpgrade, RouteUpgrades, Termination};

use crate::client::Client;
use crate::config::{all_to, cluster, http, route};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, nobody, text};

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// Sends back what comes, in upper case, until the client ends; then ends, too.
pub(crate) async fn shout(mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut buffer = [0; 1024];
    loop {
        match io.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let heard = buffer[..count].to_ascii_uppercase();
                io.write_all(&heard).await.unwrap();
                io.flush().await.unwrap();
            }
        }
    }
    let _ = io.shutdown().await;
}

/// A server of TCP that shouts.
async fn shouting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(shout(stream));
        }
    });
    address
}

/// A server of HTTP that agrees to what a check finds right, and shouts from then on.
pub(crate) async fn agreeing(status: StatusCode, check: fn(&Request<Incoming>)) -> Upstream {
    Upstream::answering(move |mut request| async move {
        check(&request);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            shout(TokioIo::new(upgrade.await.unwrap())).await;
        });
        let mut response = text(status, "");
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let headers = response.headers_mut();
            headers.insert("connection", HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("websocket"));
        }
        response
    })
    .await
}

/// All upgrades are allowed, in both versions.
fn open(routes: Vec<Route>) -> HttpConfig {
    let mut config = http(routes);
    config.upgrades = vec!["websocket".into(), CONNECT.into()];
    config.http2.allows_connect = true;
    config
}

fn connect_route(forward: Forward) -> Route {
    let matches = RouteMatch {
        path: PathMatch::Connect,
        ..RouteMatch::prefix("/")
    };
    Route::new("connect", matches, RouteAction::Forward(Arc::new(forward)))
}

/// CONNECT ends at the proxy.
fn ending() -> Forward {
    ending_as(Termination::default())
}

fn ending_as(termination: Termination) -> Forward {
    Forward {
        upgrades: RouteUpgrades::new(vec![RouteUpgrade {
            name: CONNECT.into(),
            is_enabled: true,
            termination: Some(termination),
        }]),
        ..Forward::to("shop")
    }
}

fn empty() -> Body {
    Empty::new().boxed()
}

fn connect() -> Request<Body> {
    let mut request = Request::new(empty());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "shop.test:443".parse().unwrap();
    let host = HeaderValue::from_static("shop.test:443");
    request.headers_mut().insert("host", host);
    request
}

fn websocket() -> Request<Body> {
    let request = Request::get("/chat").header("host", "shop.test");
    let request = request.header("connection", "Upgrade");
    request
        .header("upgrade", "websocket")
        .body(empty())
        .unwrap()
}

fn extended_connect() -> Request<Body> {
    let mut request = Request::new(empty());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "http://shop.test/chat".parse().unwrap();
    let protocol = Protocol::from_static("websocket");
    request.extensions_mut().insert(protocol);
    request
}

/// What comes back for `ping`, after the client has ended its side.
async fn ping(response: Response<Incoming>) -> String {
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    io.flush().await.unwrap();
    let mut heard = [0; 4];
    io.read_exact(&mut heard).await.unwrap();
    io.shutdown().await.unwrap();
    let mut rest = String::new();
    io.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
    String::from_utf8_lossy(&heard).into_owned()
}

async fn proxy_to(upstream: SocketAddr, protocol: UpstreamProtocol, config: HttpConfig) -> Proxy {
    let mut cluster = cluster("shop", &[upstream]);
    cluster.protocol = protocol;
    Proxy::serving(config, [cluster]).await
}

#[tokio::test]
async fn a_connect_that_ends_here_carries_bytes_of_tcp() {
    let upstream = shouting().await;
    let routes = vec![connect_route(ending())];
    let proxy = proxy_to(upstream, UpstreamProtocol::Http1, open(routes)).await;

    for mut client in [
        Client::http1(proxy.address).await,
        Client::http2(proxy.address).await,
    ] {
        let response = client.start(connect()).await.unwrap();

        assert_eq!(response.status(), 200);
        assert_eq!(ping(response).await, "PING");
    }

    let report = proxy.reports.request(1).await;
    assert_eq!((report.request_bytes, report.response_bytes), (4, 4));
    assert_eq!(report.upstream.unwrap().address, upstream);
}

#[tokio::test]
async fn a_post_that_ends_here_is_a_tunnel_of_two_bodies() {
    let upstream = shouting().await;
    let forward = ending_as(Termination {
        takes_post: true,
        ..Termination::default()
    });
    let config = open(all_to(forward));
    let proxy = proxy_to(upstream, UpstreamProtocol::Http1, config).await;

    for mut client in [
        Client::http1(proxy.address).await,
        Client::http2(proxy.address).await,
    ] {
        let request = Request::post("http://shop.test/").header("host", "shop.test");
        let body = Full::new(Bytes::from("ping")).boxed();
        let response = client.start(request.body(body).unwrap()).await.unwrap();

        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "PING");
    }

    let report = proxy.reports.request(1).await;
    assert_eq!((report.request_bytes, report.response_bytes), (4, 4));
}

#[tokio::test]
async fn the_upstream_of_a_connect_that_ends_here_may_be_told_the_client_first() {
    let upstream = shouting().await;
    let forward = ending_as(Termination {
        announces: Some(weft_proxy::proxy_protocol::Version::V1),
        ..Termination::default()
    });
    let routes = vec![connect_route(forward)];
    let proxy = proxy_to(upstream, UpstreamProtocol::Http1, open(routes)).await;
    let mut client = Client::http1(proxy.address).await;

    let response = client.start(connect()).await.unwrap();

    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut heard = [0; 31];
    io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"PROXY TCP4 127.0.0.1 127.0.0.1 ");
}

#[tokio::test]
async fn a_connect_that_ends_here_is_tried_elsewhere_where_nobody_listens() {
    let (dead, alive) = (nobody().await, shouting().await);
    let forward = Forward {
        retry: Some(Arc::new(RetryPolicy {
            on: RetryConditions {
                connect_failure: true,
                ..RetryConditions::default()
            },
            retries: 1,
            avoid_previous_endpoints: true,
            ..RetryPolicy::default()
        })),
        ..ending()
    };
    let routes = vec![connect_route(forward)];
    let proxy = Proxy::serving(open(routes), [cluster("shop", &[dead, alive])]).await;

    // Both endpoints are the first to be picked in turn.
    for _ in 0..2 {
        let mut client = Client::http1(proxy.address).await;
        let response = client.start(connect()).await.unwrap();
        assert_eq!(ping(response).await, "PING");
    }
}

#[tokio::test]
async fn a_connect_to_nobody_is_answered() {
    let routes = vec![connect_route(ending())];
    let proxy = proxy_to(nobody().await, UpstreamProtocol::Http1, open(routes)).await;

    for mut client in [
        Client::http1(proxy.address).await,
        Client::http2(proxy.address).await,
    ] {
        assert_eq!(client.start(connect()).await.unwrap().status(), 503);
    }

    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "UF");
}

#[tokio::test]
async fn a_connect_is_passed_on_in_the_upstreams_version() {
    let routes = || vec![connect_route(Forward::to("shop"))];
    let upstream = agreeing(StatusCode::OK, |request| {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri(), "shop.test:443");
    })
    .await;
    let mut tunnels = 0;
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let proxy = proxy_to(upstream.address, protocol, open(routes())).await;
        for mut client in [
            Client::http1(proxy.address).await,
            Client::http2(proxy.address).await,
        ] {
            let response = client.start(connect()).await.unwrap();

            assert_eq!(response.status(), 200);
            assert_eq!(ping(response).await, "PING");
            tunnels += 1;
        }
    }

    assert_eq!((tunnels, upstream.requests()), (4, 4));
}

#[tokio::test]
async fn a_connect_that_nobody_allows_is_forbidden() {
    let upstream = Upstream::named("never asked").await;
    let mut config = open(vec![connect_route(Forward::to("shop"))]);
    config.upgrades = vec!["websocket".into()];
    let proxy = proxy_to(upstream.address, UpstreamProtocol::Http1, config).await;

    let mut client = Client::http1(proxy.address).await;
    let response = client.start(connect()).await.unwrap();

    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_websocket_over_http2_reaches_an_upstream_of_http1() {
    let upstream = agreeing(StatusCode::SWITCHING_PROTOCOLS, |request| {
        assert_eq!(request.version(), Version::HTTP_11);
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri(), "/chat");
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert_eq!(request.headers()["connection"], "upgrade");
    })
    .await;
    let config = open(all_to(Forward::to("shop")));
    let proxy = proxy_to(upstream.address, UpstreamProtocol::Http1, config).await;

    let mut client = Client::http2(proxy.address).await;
    let response = client.start(extended_connect()).await.unwrap();

    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("upgrade"));
    assert_eq!(ping(response).await, "PING");
    assert_eq!(proxy.reports.request(0).await.response_code, 101);
}

#[tokio::test]
async fn a_websocket_over_http1_reaches_an_upstream_of_http2() {
    let upstream = agreeing(StatusCode::OK, |request| {
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().path(), "/chat");
        let protocol = request.extensions().get::<Protocol>();
        assert_eq!(protocol.map(Protocol::as_str), Some("websocket"));
    })
    .await;
    let config = open(all_to(Forward::to("shop")));
    let proxy = proxy_to(upstream.address, UpstreamProtocol::Http2, config).await;

    let mut client = Client::http1(proxy.address).await;
    let response = client.start(websocket()).await.unwrap();

    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(ping(response).await, "PING");
}

#[tokio::test]
async fn other_requests_go_on_beside_a_websocket_over_http2() {
    let chat = agreeing(StatusCode::SWITCHING_PROTOCOLS, |_| {}).await;
    let pages = Upstream::named("a page").await;
    let chatting = RouteAction::Forward(Arc::new(Forward::to("chat")));
    let reading = RouteAction::Forward(Arc::new(Forward::to("pages")));
    let config = open(vec![route("/chat", chatting), route("/", reading)]);
    let mut clusters = [
        cluster("chat", &[chat.address]),
        cluster("pages", &[pages.address]),
    ];
    for cluster in &mut clusters {
        cluster.protocol = UpstreamProtocol::Http1;
    }
    let proxy = Proxy::serving(config, clusters).await;

    let mut client = Client::http2(proxy.address).await;
    let tunnel = client.start(extended_connect()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/page").await.body, "a page");
    }

    assert_eq!(ping(tunnel).await, "PING");
    assert_eq!(client.get("/page").await.body, "a page");
}

#[tokio::test]
async fn a_route_allows_what_its_listener_does_not_and_the_other_way_round() {
    let upstream = agreeing(StatusCode::SWITCHING_PROTOCOLS, |_| {}).await;
    let websockets = |is_enabled| {
        let upgrades = RouteUpgrades::new(vec![RouteUpgrade {
            name: "websocket".into(),
            is_enabled,
            termination: None,
        }]);
        Forward {
            upgrades,
            ..Forward::to("shop")
        }
    };
    let mut closed = http(all_to(websockets(true)));
    closed.upgrades = vec![];
    let allowing = proxy_to(upstream.address, UpstreamProtocol::Http1, closed).await;
    let plain = Upstream::echoing().await;
    let opened = open(all_to(websockets(false)));
    let refusing = proxy_to(plain.address, UpstreamProtocol::Http1, opened).await;

    let mut client = Client::http1(allowing.address).await;
    let agreed = client.start(websocket()).await.unwrap();
    let mut client = Client::http1(refusing.address).await;
    let ignored = client.start(websocket()).await.unwrap();
    let mut client = Client::http2(refusing.address).await;
    let refused = client.start(extended_connect()).await.unwrap();

    assert_eq!(ping(agreed).await, "PING");
    // RFC 9110 §7.8: the request is an ordinary one.
    assert_eq!(ignored.status(), 200);
    let asked = ignored.into_body().collect().await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&asked).contains("upgrade"));
    assert_eq!(refused.status(), 403);
}

#[tokio::test]
async fn an_upgrade_to_http2_in_the_clear_is_an_ordinary_request() {
    let upstream = Upstream::echoing().await;
    let mut config = http(all_to(Forward::to("shop")));
    config.upgrades = vec!["h2c".into()];
    let proxy = proxy_to(upstream.address, UpstreamProtocol::Http1, config).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings, close\r\n\
                   upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();

    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains("h2c") && !answer.contains("http2-settings"));
}
