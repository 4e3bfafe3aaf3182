//! HTTP/2 as a shared connection: streams that stand still, frames at the end of connections, and limits.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use weft_proxy::config::cluster::{ClusterConfig, UpstreamProtocol};
use weft_proxy::config::http::Http2Options;
use weft_proxy::config::retry::{RetryConditions, RetryPolicy};
use weft_proxy::config::route::Forward;

use crate::client::{Client, request};
use crate::config::{all_to, cluster, http};
use crate::proxy::Proxy;
use crate::upstream::{Body, Upstream, full, text};

/// Streams that nobody reads: more than fit into what one window of a connection once was.
const STALLED: usize = 40;
/// More than fits into the window of a stream.
const LARGE: usize = 1024 * 1024;

fn http2_cluster(address: SocketAddr) -> ClusterConfig {
    ClusterConfig {
        protocol: UpstreamProtocol::Http2,
        ..cluster("shop", &[address])
    }
}

fn large() -> Bytes {
    Bytes::from(vec![b'x'; LARGE])
}

#[tokio::test]
async fn responses_that_nobody_reads_do_not_stop_others() {
    let upstream = Upstream::answering(|request| async move {
        match request.uri().path() {
            "/large" => Response::new(full(large())),
            _ => text(StatusCode::OK, "small"),
        }
    })
    .await;
    let proxy = Proxy::to(http2_cluster(upstream.address)).await;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        // Each on a connection of its own: it is the one upstream that they share.
        let mut client = Client::http2(proxy.address).await;
        let request = request("GET", "/large", "").map(|body| body.boxed());
        let response = client.start(request).await.unwrap();
        stalled.push((client, response));
    }

    let mut other = Client::http2(proxy.address).await;
    for _ in 0..3 {
        assert_eq!(other.get("/small").await.body, "small");
    }

    // One for each worker.
    assert!(upstream.connections() < STALLED / 4);
    for (_, response) in stalled {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), LARGE);
    }
}

#[tokio::test]
async fn requests_that_nobody_reads_do_not_stop_others() {
    let upstream = Upstream::answering(|request| async move {
        if request.uri().path() == "/unread" {
            std::future::pending::<()>().await;
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(StatusCode::OK, body.len().to_string())
    })
    .await;
    let mut config = cluster("shop", &[upstream.address]);
    config.protocol = UpstreamProtocol::Http1;
    let proxy = Proxy::to(config).await;
    let mut client = Client::http2(proxy.address).await;
    let Client::Http2(sender) = &client else {
        unreachable!("made as such");
    };
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut sender = sender.clone();
        let body: Body = Full::new(large()).boxed();
        let uri = "http://reviews/unread";
        let request = Request::post(uri).body(body).unwrap();
        stalled.push(tokio::spawn(
            async move { sender.send_request(request).await },
        ));
    }
    upstream.until_requests(STALLED).await;

    let asked = request("POST", "/read", "hello");
    assert_eq!(client.send(asked).await.body, "5");

    for each in stalled {
        each.abort();
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_and_a_reset_one_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let streams = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&streams);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let number = counted.fetch_add(1, Ordering::SeqCst);
                    match (request.uri().path(), number) {
                        ("/refused", 0) => respond.send_reset(h2::Reason::REFUSED_STREAM),
                        ("/reset", _) => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                        _ => {
                            let _ = respond.send_response(Response::new(()), true);
                        }
                    }
                }
            });
        }
    });
    let policy = RetryPolicy {
        on: RetryConditions {
            refused_stream: true,
            ..RetryConditions::default()
        },
        retries: 1,
        ..RetryPolicy::default()
    };
    let forward = Forward {
        retry: Some(Arc::new(policy)),
        ..Forward::to("shop")
    };
    let proxy = Proxy::serving(http(all_to(forward)), [http2_cluster(address)]).await;
    let mut client = Client::http2(proxy.address).await;

    // The peer says that it has not looked at it: even a POST is safe.
    let refused = client.send(request("POST", "/refused", "")).await;
    let reset = client.send(request("POST", "/reset", "")).await;

    assert_eq!(refused.status, 200);
    assert_eq!(reset.status, 503);
    assert_eq!(streams.load(Ordering::SeqCst), 3);
    assert_eq!(proxy.reports.request(0).await.attempts, 2);
    assert_eq!(proxy.reports.request(1).await.flags.to_string(), "UR");
}

#[tokio::test]
async fn what_was_sent_before_goaway_is_answered_and_the_next_goes_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                if let Some(Ok((_, mut respond))) = connection.accept().await {
                    connection.graceful_shutdown();
                    let _ = respond.send_response(Response::new(()), true);
                }
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let _ = respond.send_response(Response::new(()), true);
                }
            });
        }
    });
    let proxy = Proxy::to(http2_cluster(address)).await;
    let mut client = Client::http2(proxy.address).await;

    for _ in 0..5 {
        assert_eq!(client.send(request("POST", "/", "")).await.status, 200);
    }

    assert!(connections.load(Ordering::SeqCst) >= 2);
}

/// Answers with a head, says what it is sent, and then how the request has ended.
async fn listening_peer() -> (
    SocketAddr,
    mpsc::UnboundedReceiver<Result<Bytes, h2::Error>>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (say, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let _response: h2::SendStream<Bytes> =
            respond.send_response(Response::new(()), false).unwrap();
        let mut body = request.into_body();
        while let Some(data) = body.data().await {
            let has_failed = data.is_err();
            say.send(data).unwrap();
            if has_failed {
                break;
            }
        }
    });
    (address, heard)
}

#[tokio::test]
async fn a_request_goes_on_after_its_response_has_begun_until_that_is_given_up() {
    let (address, mut heard) = listening_peer().await;
    let proxy = Proxy::to(http2_cluster(address)).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();

    let request = Request::post("http://reviews/").body(()).unwrap();
    let (response, mut to_proxy) = client.send_request(request, false).unwrap();
    let _response = response.await.unwrap();
    for piece in ["a", "b", "c"] {
        to_proxy.send_data(Bytes::from(piece), false).unwrap();
        assert_eq!(heard.recv().await.unwrap().unwrap(), piece);
    }
    to_proxy.send_reset(h2::Reason::CANCEL);

    let ended = heard.recv().await.unwrap().unwrap_err();
    assert_eq!(ended.reason(), Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn an_upstream_gets_no_more_streams_than_it_allows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let open = Arc::new(AtomicUsize::new(0));
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(2);
                let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let open = Arc::clone(&open);
                    seen.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::spawn(async move {
                        tokio::task::yield_now().await;
                        open.fetch_sub(1, Ordering::SeqCst);
                        let _ = respond.send_response(Response::new(()), true);
                    });
                }
            });
        }
    });
    let proxy = Proxy::to(http2_cluster(address)).await;
    let Client::Http2(sender) = Client::http2(proxy.address).await else {
        unreachable!("made as such");
    };

    let all = (0..40).map(|_| {
        let mut sender = sender.clone();
        let body: Body = full("");
        let request = Request::get("http://reviews/").body(body).unwrap();
        tokio::spawn(async move { sender.send_request(request).await.unwrap().status() })
    });
    for each in all.collect::<Vec<_>>() {
        assert_eq!(each.await.unwrap(), 200);
    }

    assert!(most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_client_gets_no_more_streams_than_its_listener_allows() {
    let upstream = Upstream::hanging().await;
    let mut config = http(all_to(Forward::to("shop")));
    config.http2 = Http2Options {
        max_concurrent_streams: Some(3),
        ..Http2Options::default()
    };
    let proxy = Proxy::serving(config, [http2_cluster(upstream.address)]).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (_sender, mut connection) = h2::client::handshake(stream).await.unwrap();

    let told = poll_fn(|context| {
        assert!(Pin::new(&mut connection).poll(context).is_pending());
        match connection.max_concurrent_send_streams() {
            3 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    });
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .unwrap();
}

#[tokio::test]
async fn grpc_is_passed_on_with_trailers_and_with_trailers_only() {
    let upstream = Upstream::answering(|request| async move {
        let mut response = match request.uri().path() {
            "/books.Books/Lost" => {
                let mut response = Response::new(full(""));
                let headers = response.headers_mut();
                headers.insert("grpc-status", HeaderValue::from_static("5"));
                response
            }
            _ => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let message = Frame::data(Bytes::from_static(b"message"));
                let frames = [message, Frame::trailers(trailers)].map(Ok::<_, Infallible>);
                Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed())
            }
        };
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        response
    })
    .await;
    let proxy = Proxy::to(http2_cluster(upstream.address)).await;
    let mut client = Client::http2(proxy.address).await;
    let call = |path: &str| {
        let mut asked = request("POST", path, "question");
        let grpc = HeaderValue::from_static("application/grpc");
        asked.headers_mut().insert("content-type", grpc);
        let trailers = HeaderValue::from_static("trailers");
        asked.headers_mut().insert("te", trailers);
        asked
    };

    let lost = client.send(call("/books.Books/Lost")).await;
    let found = client.send(call("/books.Books/Found")).await;

    assert_eq!(
        (lost.header("grpc-status"), lost.trailers.is_none()),
        (Some("5"), true)
    );
    assert_eq!(found.trailers.unwrap()["grpc-status"], "0");
    assert_eq!(proxy.reports.request(0).await.grpc_status, Some(5));
    assert_eq!(proxy.reports.request(1).await.grpc_status, Some(0));
}
