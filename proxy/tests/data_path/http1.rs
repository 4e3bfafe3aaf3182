//! HTTP/1.1 and HTTP/1.0 to the letter: what only the bytes show.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::config::cluster::{ClusterConfig, UpstreamProtocol};
use weft_proxy::config::http::HttpConfig;
use weft_proxy::config::http1::{HeaderNames, Http1Options};
use weft_proxy::config::retry::{RetryConditions, RetryPolicy};
use weft_proxy::config::route::Forward;

use crate::client::Client;
use crate::config::{all_to, cluster, http};
use crate::proxy::Proxy;
use crate::upstream::Upstream;

/// A server that answers the head of each request with the very bytes, and tells what it was asked.
struct Scripted {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    asked: tokio::sync::mpsc::UnboundedReceiver<String>,
}

async fn scripted(answers: &'static [&'static str]) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = tokio::sync::mpsc::unbounded_channel();
    let next = Arc::new(AtomicUsize::new(0));
    let connections = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::SeqCst);
            let (tell, next) = (tell.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                while let Some(head) = head(&mut stream).await {
                    let _ = tell.send(head);
                    let answer = answers[next.fetch_add(1, Ordering::SeqCst) % answers.len()];
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Scripted {
        address,
        connections,
        asked,
    }
}

/// Reads to the end of a head; `None` where there is none any more.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Sends bytes, and reads until the proxy closes the connection.
async fn say(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn shop(address: SocketAddr, http1: Http1Options) -> ClusterConfig {
    ClusterConfig {
        protocol: UpstreamProtocol::Http1,
        http1,
        ..cluster("shop", &[address])
    }
}

fn config(http1: Http1Options) -> HttpConfig {
    HttpConfig {
        http1,
        ..http(all_to(Forward::to("shop")))
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-Own-NAME: a\r\n\r\nok";

#[tokio::test]
async fn http10_is_answered_where_it_is_accepted() {
    let upstream = Upstream::echoing().await;
    let accepting = Http1Options {
        accepts_http10: true,
        default_host: Some("default.test".parse().unwrap()),
        ..Http1Options::default()
    };
    let to = |options| {
        let cluster = shop(upstream.address, Http1Options::default());
        Proxy::serving(config(options), [cluster])
    };
    let (open, closed) = (to(accepting).await, to(Http1Options::default()).await);

    let answer = say(open.address, "GET /old HTTP/1.0\r\n\r\n").await;
    let refused = say(closed.address, "GET /old HTTP/1.0\r\nhost: a\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");
    assert!(answer.contains("GET /old HTTP/1.1"), "{answer}");
    assert!(answer.contains("host: default.test"), "{answer}");
    assert!(refused.contains(" 426 "), "{refused}");
    assert_eq!(closed.reports.request(0).await.flags.to_string(), "DPE");
}

#[tokio::test]
async fn names_of_headers_are_written_as_both_sides_want_them() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-tWO-words: b\r\nconnection: close\r\n\r\n";
    for (names, asked, answered) in [
        (
            HeaderNames::LowerCase,
            "\r\nx-two-words: b",
            "\r\nx-own-name: a",
        ),
        (
            HeaderNames::ProperCase,
            "\r\nX-Two-Words: b",
            "\r\nX-Own-Name: a",
        ),
        (
            HeaderNames::Preserved,
            "\r\nX-tWO-words: b",
            "\r\nx-Own-NAME: a",
        ),
    ] {
        let mut upstream = scripted(&[OK]).await;
        let options = Http1Options {
            names,
            ..Http1Options::default()
        };
        let cluster = shop(upstream.address, options.clone());
        let proxy = Proxy::serving(config(options), [cluster]).await;

        let answer = say(proxy.address, request).await;

        let head = upstream.asked.recv().await.unwrap();
        assert!(head.contains(asked), "{names:?}: {head}");
        assert!(answer.contains(answered), "{names:?}: {answer}");
    }
}

#[tokio::test]
async fn names_of_headers_that_a_listener_keeps_are_kept_upstream() {
    let mut upstream = scripted(&[OK]).await;
    let keeping = Http1Options {
        names: HeaderNames::Preserved,
        ..Http1Options::default()
    };
    let cluster = shop(upstream.address, Http1Options::default());
    let proxy = Proxy::serving(config(keeping), [cluster]).await;

    for _ in 0..2 {
        say(
            proxy.address,
            "GET / HTTP/1.1\r\nHost: a\r\nX-tWO-words: b\r\nconnection: close\r\n\r\n",
        )
        .await;

        let head = upstream.asked.recv().await.unwrap();
        assert!(head.contains("\r\nX-tWO-words: b"), "{head}");
    }
}

#[tokio::test]
async fn a_connection_that_its_upstream_closes_is_closed_without_another_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cluster = shop(address, Http1Options::default());
    let proxy = Proxy::serving(config(Http1Options::default()), [cluster]).await;
    let asking = tokio::spawn(say(
        proxy.address,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ));
    let (mut stream, _) = listener.accept().await.unwrap();
    head(&mut stream).await.unwrap();
    stream.write_all(OK.as_bytes()).await.unwrap();
    assert!(asking.await.unwrap().ends_with("ok"));

    stream.shutdown().await.unwrap();

    let mut rest = vec![];
    let ended = stream.read_to_end(&mut rest);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await;
    ended.expect("in time").unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn an_upstream_that_is_a_proxy_is_told_the_whole_url() {
    let mut upstream = scripted(&[OK]).await;
    let options = Http1Options {
        sends_absolute_url: true,
        ..Http1Options::default()
    };
    let cluster = shop(upstream.address, options);
    let proxy = Proxy::serving(config(Http1Options::default()), [cluster]).await;

    say(
        proxy.address,
        "GET /a?b HTTP/1.1\r\nhost: shop.test:81\r\nconnection: close\r\n\r\n",
    )
    .await;

    let head = upstream.asked.recv().await.unwrap();
    assert!(
        head.starts_with("GET http://shop.test:81/a?b HTTP/1.1\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn the_upstream_decides_whether_a_body_shall_come() {
    let asking = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let declining = "HTTP/1.1 417 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for (answer, expected) in [(asking, "HTTP/1.1 100"), (declining, "HTTP/1.1 417")] {
        let answers: &'static [&'static str] = Box::leak(Box::new([answer]));
        let mut upstream = scripted(answers).await;
        let config = HttpConfig {
            proxies_continue: true,
            ..config(Http1Options::default())
        };
        let cluster = shop(upstream.address, Http1Options::default());
        let proxy = Proxy::serving(config, [cluster]).await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let request =
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";

        client.write_all(request.as_bytes()).await.unwrap();
        let first = head(&mut client).await.unwrap();

        assert!(first.starts_with(expected), "{first}");
        let asked = upstream.asked.recv().await.unwrap();
        assert!(asked.contains("expect: 100-continue"), "{asked}");
    }
}

#[tokio::test]
async fn a_malformed_body_is_the_clients_fault_alone() {
    let upstream = Upstream::echoing().await;
    let policy = RetryPolicy {
        on: RetryConditions {
            reset: true,
            server_error: true,
            ..RetryConditions::default()
        },
        retries: 3,
        ..RetryPolicy::default()
    };
    let forward = Forward {
        retry: Some(Arc::new(policy)),
        ..Forward::to("shop")
    };
    let cluster = shop(upstream.address, Http1Options::default());
    let proxy = Proxy::serving(http(all_to(forward)), [cluster]).await;

    let request =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n";
    let answer = say(proxy.address, request).await;

    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    let report = proxy.reports.request(0).await;
    assert_eq!(
        (report.flags.to_string().as_str(), report.attempts),
        ("DPE", 1)
    );
}

#[tokio::test]
async fn what_came_before_an_error_within_a_response_is_passed_on() {
    let upstream =
        scripted(&["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n"]).await;
    let cluster = shop(upstream.address, Http1Options::default());
    let proxy = Proxy::serving(config(Http1Options::default()), [cluster]).await;

    let answer = say(proxy.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("2\r\nab\r\n"), "{answer}");
    assert_eq!(proxy.reports.request(0).await.flags.to_string(), "UPE");
}

#[tokio::test]
async fn connections_are_kept_after_trailers() {
    let upstream = scripted(&[
        "HTTP/1.1 200 OK\r\ntrailer: x-t\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-t: v\r\n\r\n",
    ])
    .await;
    let cluster = shop(upstream.address, Http1Options::default());
    let proxy = Proxy::serving(config(Http1Options::default()), [cluster]).await;
    let mut client = Client::http1(proxy.address).await;

    for _ in 0..2 {
        assert_eq!(client.get("/").await.body, "ab");
    }

    for index in 0..2 {
        let report = proxy.reports.request(index).await;
        assert_eq!(report.flags.to_string(), "-", "request {index}");
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_when_it_has_been_idle() {
    let config = HttpConfig {
        idle_timeout: Some(std::time::Duration::from_millis(50)),
        ..config(Http1Options::default())
    };
    let proxy = Proxy::serving(config, []).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();

    let mut nothing = Vec::new();
    client.read_to_end(&mut nothing).await.unwrap();

    assert!(nothing.is_empty());
}
