//! Requests of HTTP/1.1 between two sidecars that share a connection of HTTP/2: nobody before or behind them can tell.

mod alone;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use weft_proxy::config::cluster::{ClusterConfig, Sharing};
use weft_proxy::config::route::Forward;
use weft_proxy::telemetry::report::Protocol;

use crate::client::{Client, Got, get, request, shout};
use crate::config::{LISTENER, all_to, cluster, configuration, filter, http, listener};
use crate::proxy::{Proxy, known};
use crate::tls::{Authority, PRODUCTPAGE, REVIEWS, inbound, over_tls};
use crate::upstream::{Upstream, text, until};

/// As many as there are workers: each has connections of its own.
const WORKERS: u64 = 2;

/// Two sidecars; the application is behind the second.
struct Pair {
    client: Proxy,
    server: Proxy,
}

impl Pair {
    async fn to(app: &Upstream, sharing: Sharing) -> Self {
        let authority = Authority::new();
        let behind = cluster("app", &[app.address]);
        let identity = known(authority.identity(REVIEWS));
        let server = Proxy::start_as(configuration([inbound()], [behind]), identity).await;
        let reviews = ClusterConfig {
            sharing,
            ..over_tls(server.address, REVIEWS)
        };
        let client = client(&authority, reviews).await;
        Pair { client, server }
    }

    /// Connections that the server's side has accepted.
    fn accepted(&self) -> u64 {
        let snapshot = self.server.data_plane.snapshot();
        let live = &snapshot.listeners[LISTENER].live;
        live.accepted.load(Ordering::Relaxed)
    }
}

async fn client(authority: &Authority, reviews: ClusterConfig) -> Proxy {
    let requests = filter(http(all_to(Forward::to("reviews"))));
    let outbound = configuration([listener(requests)], [reviews]);
    Proxy::start_as(outbound, known(authority.identity(PRODUCTPAGE))).await
}

#[tokio::test]
async fn requests_of_many_clients_share_a_connection_of_each_worker() {
    let app = Upstream::echoing().await;
    let pair = Pair::to(&app, Sharing::Always).await;
    let mut clients = vec![];
    for _ in 0..8 {
        clients.push(Client::http1(pair.client.address).await);
    }

    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get("/").await.status, 200);
        }
    }

    assert!(pair.accepted() <= WORKERS, "{}", pair.accepted());
    let sent = pair.client.reports.request(23).await;
    let upstream = sent.upstream.unwrap();
    assert_eq!(sent.protocol, Protocol::Http11);
    assert_eq!(upstream.protocol, Some(Protocol::Http2));
    assert!(upstream.is_mutual_tls && upstream.session.is_some());
    let served = pair.server.reports.request(23).await;
    assert_eq!(served.protocol, Protocol::Http11);
    assert_eq!(served.upstream.unwrap().protocol, Some(Protocol::Http11));
    assert_eq!(served.downstream.principal.as_deref(), Some(PRODUCTPAGE));
}

/// What is asked in the comparison below; the application echoes what has arrived.
fn questions() -> Vec<Request<Full<Bytes>>> {
    let large = Request::put("/large")
        .header("host", "reviews")
        .body(Full::new(Bytes::from(vec![b'x'; 300_000])))
        .unwrap();
    let mut cookies = request("GET", "/cookies", "");
    for value in ["a=1", "b=2"] {
        let value = HeaderValue::from_static(value);
        cookies.headers_mut().append("cookie", value);
    }
    let mut trailers = request("POST", "/te", "some");
    let accepted = HeaderValue::from_static("trailers, deflate");
    trailers.headers_mut().insert("te", accepted);
    let mut for_one = request("GET", "/hop-by-hop", "");
    for (name, value) in [("connection", "x-mine"), ("x-mine", "1"), ("x-yours", "2")] {
        let value = HeaderValue::from_static(value);
        for_one.headers_mut().insert(name, value);
    }
    let mut host = request("GET", "/host?a=b&c=%20d", "");
    let named = HeaderValue::from_static("Reviews.default:8080");
    host.headers_mut().insert("host", named);
    let mut no_authority = request("GET", "/no-authority", "");
    no_authority
        .headers_mut()
        .insert("host", HeaderValue::from_static(""));
    vec![
        request("GET", "/", ""),
        request("HEAD", "/head", ""),
        request("POST", "/post", "a body"),
        request("POST", "/empty", ""),
        request("DELETE", "/delete", ""),
        request("OPTIONS", "/options", ""),
        large,
        cookies,
        trailers,
        for_one,
        host,
        no_authority,
    ]
}

/// What came, without what differs from request to request.
fn comparable(got: Got) -> (StatusCode, Vec<String>, String) {
    let varies = |line: &str| {
        [
            "date",
            "x-request-id",
            "x-forwarded-client-cert",
            "x-envoy-upstream-service-time",
        ]
        .iter()
        .any(|name| line.starts_with(&format!("{name}: ")))
    };
    let headers = got.headers.iter();
    let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    let mut headers: Vec<String> = headers.filter(|line| !varies(line)).collect();
    headers.sort();
    // The order of headers is nobody's business, but for values of one name.
    let mut lines: Vec<&str> = got.body.lines().filter(|line| !varies(line)).collect();
    lines.sort_by_key(|line| line.split(':').next());
    (got.status, headers, lines.join("\n"))
}

#[tokio::test]
async fn what_arrives_and_what_comes_back_is_what_it_would_be_without() {
    let mut seen = vec![];
    for sharing in [Sharing::Never, Sharing::Always] {
        let app = Upstream::echoing().await;
        let pair = Pair::to(&app, sharing).await;
        let mut client = Client::http1(pair.client.address).await;
        let mut answers = vec![];
        for question in questions() {
            answers.push(comparable(client.send(question).await));
        }
        // The host that is none goes alone.
        let is_shared = sharing == Sharing::Always;
        assert_eq!(pair.accepted(), 1 + u64::from(is_shared));
        seen.push(answers);
    }

    let shared = seen.pop().unwrap();
    for (alone, shared) in seen.pop().unwrap().into_iter().zip(shared) {
        assert_eq!(alone, shared);
        assert!(
            alone.2.is_empty() || alone.2.contains(" HTTP/1.1"),
            "{alone:?}"
        );
    }
}

#[tokio::test]
async fn failures_of_the_application_are_told_as_they_are() {
    for sharing in [Sharing::Never, Sharing::Always] {
        let app = Upstream::answering(|request| async move {
            match request.uri().path() {
                "/503" => text(StatusCode::SERVICE_UNAVAILABLE, "busy"),
                "/304" => text(StatusCode::NOT_MODIFIED, ""),
                _ => {
                    // Its connection ends with it.
                    panic!("an application that dies");
                }
            }
        })
        .await;
        let pair = Pair::to(&app, sharing).await;
        let mut client = Client::http1(pair.client.address).await;

        let busy = client.get("/503").await;
        assert_eq!((busy.status.as_u16(), busy.body.as_str()), (503, "busy"));
        assert_eq!(client.get("/304").await.status, 304);
        let died = client.send(request("POST", "/die", "x")).await;
        assert_eq!(died.status, 503, "{died:?}");
    }
}

/// Answers once there is a permit for it.
async fn late(answers: &Arc<Semaphore>) -> Upstream {
    let permits = Arc::clone(answers);
    Upstream::answering(move |_| {
        let permits = Arc::clone(&permits);
        async move {
            permits.acquire().await.unwrap().forget();
            text(StatusCode::OK, "late")
        }
    })
    .await
}

#[tokio::test]
async fn what_a_draining_server_has_begun_is_answered() {
    let answers = Arc::new(Semaphore::new(0));
    let app = late(&answers).await;
    let pair = Pair::to(&app, Sharing::Always).await;
    let address = pair.client.address;
    let asked = |count: usize| (0..count).map(move |_| tokio::spawn(get(address, "/")));
    let begun: Vec<_> = asked(3).collect();
    app.until_requests(3).await;

    let data_plane = Arc::clone(&pair.server.data_plane);
    let draining = tokio::spawn(async move { data_plane.drain(Duration::from_secs(60)).await });
    let drain = &pair.server.data_plane.environment().drain;
    until(|| drain.is_started()).await;
    answers.add_permits(3);

    for answered in begun {
        assert_eq!(answered.await.unwrap().body, "late");
    }
    assert_eq!(draining.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_client_that_gives_up_takes_nobody_with_it() {
    let app = Upstream::answering(|request| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        text(StatusCode::OK, "answered")
    })
    .await;
    let pair = Pair::to(&app, Sharing::Always).await;
    let mut kept = Client::http1(pair.client.address).await;
    assert_eq!(kept.get("/").await.status, 200);

    for _ in 0..4 {
        let mut impatient = Client::http1(pair.client.address).await;
        let asked = impatient.get("/never");
        let gave_up = tokio::time::timeout(Duration::from_millis(50), asked).await;
        assert!(gave_up.is_err());
    }

    app.until_cancelled(4).await;
    assert_eq!(kept.get("/").await.body, "answered");
    assert!(pair.accepted() <= WORKERS);
}

#[tokio::test]
async fn a_large_head_goes_alone() {
    let app = Upstream::echoing().await;
    let pair = Pair::to(&app, Sharing::Always).await;
    let mut client = Client::http1(pair.client.address).await;
    let mut asked = request("GET", "/", "");
    // Four times as much, once it is compressed: more than HTTP/2 takes of one head.
    let value = HeaderValue::from_bytes(&[0xf9; 50_000]).unwrap();
    asked.headers_mut().insert("x-large", value);

    assert_eq!(client.send(asked).await.status, 200);
    assert_eq!(client.get("/").await.status, 200);

    let alone = pair.client.reports.request(0).await.upstream.unwrap();
    assert_eq!(alone.protocol, Some(Protocol::Http11));
    let shared = pair.client.reports.request(1).await.upstream.unwrap();
    assert_eq!(shared.protocol, Some(Protocol::Http2));
}

#[tokio::test]
async fn a_large_head_of_a_response_comes_through() {
    let app = Upstream::answering(|_| async move {
        let mut response = text(StatusCode::OK, "answered");
        let value = HeaderValue::from_bytes(&[0xf9; 50_000]).unwrap();
        response.headers_mut().insert("x-large", value);
        response
    })
    .await;
    let pair = Pair::to(&app, Sharing::Always).await;
    let mut client = Client::http1(pair.client.address).await;

    for _ in 0..3 {
        let got = client.get("/").await;
        assert_eq!(
            (got.status.as_u16(), got.headers["x-large"].len()),
            (200, 50_000)
        );
    }
    assert!(pair.accepted() <= WORKERS);
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_nobody_else() {
    // So many for each worker that windows of the usual size would be used up.
    const STALLED: usize = 260;
    let app = Upstream::answering(|request| async move {
        match request.uri().path() {
            "/large" => text(StatusCode::OK, vec![b'x'; 1024 * 1024]),
            _ => text(StatusCode::OK, "small"),
        }
    })
    .await;
    let pair = Pair::to(&app, Sharing::Always).await;
    let mut stalled = vec![];
    for _ in 0..STALLED {
        let mut stream = TcpStream::connect(pair.client.address).await.unwrap();
        let asked = b"GET /large HTTP/1.1\r\nhost: reviews\r\n\r\n";
        stream.write_all(asked).await.unwrap();
        stalled.push(stream);
    }
    app.until_requests(STALLED).await;

    for _ in 0..4 {
        assert_eq!(get(pair.client.address, "/").await.body, "small");
        assert_eq!(
            get(pair.client.address, "/large").await.body.len(),
            1024 * 1024
        );
    }
    drop(stalled);
}

#[tokio::test]
async fn large_trailers_end_nothing_but_their_request() {
    let app = Upstream::echoing().await;
    let pair = Pair::to(&app, Sharing::Always).await;
    let mut kept = Client::http1(pair.client.address).await;
    assert_eq!(kept.get("/").await.status, 200);
    let mut stream = TcpStream::connect(pair.client.address).await.unwrap();
    let head =
        "POST / HTTP/1.1\r\nhost: reviews\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n";
    let mut asked = head.as_bytes().to_vec();
    asked.extend_from_slice(b"4\r\nbody\r\n0\r\nx-end: ");
    asked.extend_from_slice(&[0xf9; 50_000]);
    asked.extend_from_slice(b"\r\n\r\n");
    stream.write_all(&asked).await.unwrap();

    let mut answer = [0; 12];
    let answered = stream.read_exact(&mut answer).await;

    // The application may have answered by then.
    assert!(answered.is_err() || answer.starts_with(b"HTTP/1.1 "));
    assert_eq!(kept.get("/").await.status, 200);
    assert!(pair.accepted() <= WORKERS, "{}", pair.accepted());
}

#[tokio::test]
async fn a_websocket_has_a_connection_of_its_own() {
    let app = Upstream::shouting().await;
    let pair = Pair::to(&app, Sharing::Always).await;

    assert_eq!(shout(pair.client.address, "ping").await, "PING");
}

#[tokio::test]
async fn requests_of_http2_do_not_share_with_those_of_http1() {
    let app = Upstream::echoing().await;
    let pair = Pair::to(&app, Sharing::Always).await;

    for (mut caller, version) in [
        (Client::http1(pair.client.address).await, "HTTP/1.1"),
        (Client::http2(pair.client.address).await, "HTTP/2.0"),
        (Client::http1(pair.client.address).await, "HTTP/1.1"),
    ] {
        let got = caller.get("/x").await;
        let line = got.body.lines().next().unwrap();
        assert!(line.ends_with(version), "{}", got.body);
    }
}

/// A server of HTTP/1.1 with the identity of a sidecar that has never heard of sharing.
async fn unaware(authority: &Authority) -> (SocketAddr, Arc<AtomicU64>) {
    let identity = authority.identity(REVIEWS);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity.key)));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut asked = vec![0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut asked).await {
                    let is_http1 = asked[..read].starts_with(b"GET /");
                    let status = if is_http1 {
                        "200 OK"
                    } else {
                        "400 Bad Request"
                    };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (address, accepted)
}

#[tokio::test]
async fn whoever_has_not_heard_of_sharing_is_spoken_http1_to() {
    let authority = Authority::new();
    let (address, accepted) = unaware(&authority).await;
    let reviews = ClusterConfig {
        sharing: Sharing::Always,
        ..over_tls(address, REVIEWS)
    };
    let client = client(&authority, reviews).await;
    let mut caller = Client::http1(client.address).await;

    for _ in 0..5 {
        let got = caller.get("/").await;
        assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "ok"));
    }

    // One that asked whether it may be shared, and one for all requests.
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
}
