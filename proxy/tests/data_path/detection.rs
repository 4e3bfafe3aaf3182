//! Opaque bytes, and telling them from HTTP without making anybody wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use weft_proxy::config::listener::{ChainMatch, FilterChain, ListenerConfig};
use weft_proxy::config::route::Forward;
use weft_proxy::snapshot::listener::Verdict;

use crate::client::{Client, get};
use crate::config::{LISTENER, all_to, chain, cluster, configuration, filter, http, listener, tcp};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, nobody, until};

/// HTTP to one cluster, everything else to another, as the control plane configures an undeclared port.
fn detecting() -> ListenerConfig {
    let http = FilterChain {
        matches: ChainMatch {
            application_protocols: vec!["http/1.1".into(), "h2c".into()],
            ..ChainMatch::default()
        },
        ..chain(filter(http(all_to(Forward::to("http")))))
    };
    ListenerConfig {
        filter_chains: vec![http],
        inspect_http: true,
        ..listener(tcp("tcp"))
    }
}

/// Greets, then answers with what it heard in capitals, until the client ends its side.
async fn greeting() -> SocketAddr {
    greeting_once(watch::channel(true).1).await
}

/// The same, which greets nobody before it may.
async fn greeting_once(may: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut may = may.clone();
            tokio::spawn(async move {
                let _ = may.wait_for(|may| *may).await;
                let _ = stream.write_all(b"220 ready\n").await;
                let mut heard = String::new();
                let _ = stream.read_to_string(&mut heard).await;
                let _ = stream.write_all(heard.to_uppercase().as_bytes()).await;
            });
        }
    });
    address
}

async fn proxy(http: SocketAddr, tcp: SocketAddr) -> Proxy {
    let clusters = [cluster("http", &[http]), cluster("tcp", &[tcp])];
    Proxy::start(configuration([detecting()], clusters)).await
}

fn verdict(proxy: &Proxy) -> Verdict {
    proxy.data_plane.snapshot().listeners[LISTENER]
        .live
        .verdict()
}

async fn hear_greeting(address: SocketAddr) -> (TcpStream, Duration) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let started = Instant::now();
    let mut greeting = [0; 10];
    let heard = stream.read_exact(&mut greeting);
    tokio::time::timeout(Duration::from_secs(10), heard)
        .await
        .expect("in time")
        .unwrap();
    assert_eq!(&greeting, b"220 ready\n");
    (stream, started.elapsed())
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_and_answered() {
    let proxy = proxy(nobody().await, greeting().await).await;

    let (mut stream, _) = hear_greeting(proxy.address).await;
    stream.write_all(b"helo").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert_eq!(answer, "HELO");
    assert_eq!(verdict(&proxy), Verdict::ServerFirst);
    let report = proxy.reports.closed(0).await;
    assert_eq!((report.received_bytes, report.sent_bytes), (4, 14));
    assert_eq!(report.cluster.as_deref(), Some("tcp"));
}

#[tokio::test]
async fn a_client_that_speaks_first_is_told_by_what_it_says() {
    let upstream = Upstream::named("http").await;
    let (greets, may) = watch::channel(false);
    let proxy = proxy(upstream.address, greeting_once(may).await).await;

    assert_eq!(get(proxy.address, "/").await.body, "http");
    assert_eq!(verdict(&proxy), Verdict::Http1);
    assert_eq!(
        Client::http2(proxy.address).await.get("/").await.body,
        "http"
    );
    assert_eq!(verdict(&proxy), Verdict::Http2);

    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    until(|| verdict(&proxy) == Verdict::Opaque).await;
    greets.send_replace(true);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert_eq!(answer, "220 ready\n*1\r\n$4\r\nPING\r\n");
    assert_eq!(verdict(&proxy), Verdict::Opaque);
}

/// Says something first, then what it is sent, to each client.
async fn greeting_with(words: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(words).await;
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

/// An empty SETTINGS frame, with which servers of HTTP/2 begin before they have heard anything.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn an_http2_server_that_is_quicker_than_its_client_is_still_http2() {
    let upstream = Upstream::named("http").await;
    let proxy = proxy(upstream.address, greeting_with(SETTINGS).await).await;

    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let listener = proxy.data_plane.snapshot().listeners[LISTENER].clone();
    until(|| listener.live.http2_greetings.load(Ordering::Relaxed) == 1).await;
    let mut client = Client::http2_over(stream).await;

    assert_eq!(client.get("/").await.body, "http");
    assert_eq!(verdict(&proxy), Verdict::Http2);
}

#[tokio::test]
async fn a_greeting_that_was_held_back_reaches_a_client_of_another_protocol() {
    let proxy = proxy(nobody().await, greeting_with(SETTINGS).await).await;
    let listener = proxy.data_plane.snapshot().listeners[LISTENER].clone();
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    until(|| listener.live.http2_greetings.load(Ordering::Relaxed) == 1).await;

    stream.write_all(b"?").await.unwrap();
    let mut heard = [0; 10];
    stream.read_exact(&mut heard).await.unwrap();

    assert_eq!(heard, [0, 0, 0, 4, 0, 0, 0, 0, 0, b'?']);
    assert_eq!(verdict(&proxy), Verdict::Opaque);
}

#[tokio::test]
async fn one_http_client_does_not_make_a_server_first_service_unreachable() {
    let upstream = Upstream::named("http").await;
    // Else a busy machine may hear the server before it hears the client.
    let (greets, may) = watch::channel(false);
    let proxy = proxy(upstream.address, greeting_once(may).await).await;
    assert_eq!(get(proxy.address, "/").await.body, "http");

    greets.send_replace(true);
    hear_greeting(proxy.address).await;
    assert_eq!(verdict(&proxy), Verdict::ServerFirst);
    let (_stream, waited) = hear_greeting(proxy.address).await;

    assert!(
        waited < Duration::from_millis(100),
        "remembered, so that nobody waits: {waited:?}"
    );
}

#[tokio::test]
async fn http_is_served_where_the_opaque_upstream_cannot_be_reached() {
    let upstream = Upstream::named("http").await;
    let proxy = proxy(upstream.address, nobody().await).await;

    assert_eq!(get(proxy.address, "/").await.body, "http");
}

#[tokio::test]
async fn an_unreachable_upstream_closes_the_clients_connection() {
    let nowhere = nobody().await;
    let plain = configuration([listener(tcp("tcp"))], [cluster("tcp", &[nowhere])]);
    let proxy = Proxy::start(plain).await;

    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let mut nothing = vec![];
    let _ = stream.read_to_end(&mut nothing).await;

    assert!(nothing.is_empty());
    let report = proxy.reports.closed(0).await;
    assert_eq!(report.flags.to_string(), "URX,UF");
    assert_eq!(report.upstream.unwrap().address, nowhere);
}

#[tokio::test]
async fn a_connection_that_was_not_redirected_is_not_sent_in_a_circle() {
    let circular = ListenerConfig {
        use_original_destination: true,
        ..listener(tcp("passthrough"))
    };
    let passthrough = weft_proxy::config::cluster::ClusterConfig::new(
        "passthrough",
        weft_proxy::config::cluster::Discovery::OriginalDestination,
    );
    let proxy = Proxy::start(configuration([circular], [passthrough])).await;

    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let mut nothing = vec![];
    let _ = stream.read_to_end(&mut nothing).await;

    let live = Arc::clone(&proxy.data_plane.snapshot().listeners[LISTENER].live);
    until(|| {
        live.loops_refused
            .load(std::sync::atomic::Ordering::Relaxed)
            == 1
    })
    .await;
}
