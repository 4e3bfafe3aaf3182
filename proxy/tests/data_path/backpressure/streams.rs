//! The same over HTTP/2, whose streams have windows of their own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{ALL, PATIENCE, STOPPED};
use crate::client::{Client, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::tls::mutual_tls;
use crate::upstream::{Body, Upstream, text};

/// The windows and buffers on the way through one proxy, and of the client and upstream here, which are libraries
/// with windows of their own: a mebibyte for each receiver, 400 KiB for each sender.
const ON_THE_WAY: usize = 6 * 1024 * 1024;

/// A body that says how much of it was taken.
struct Counted {
    taken: Arc<AtomicUsize>,
}

const PIECE: usize = 16 * 1024;

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.taken.load(Ordering::SeqCst) == ALL {
            return Poll::Ready(None);
        }
        self.taken.fetch_add(PIECE, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'a'; PIECE])))))
    }
}

fn counted() -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let body = Counted {
        taken: Arc::clone(&taken),
    };
    (body.boxed(), taken)
}

/// How much was taken when no more is.
async fn until_stopped(taken: &AtomicUsize) -> usize {
    let mut last = (taken.load(Ordering::SeqCst), Instant::now());
    let begun = Instant::now();
    while last.0 == 0 || last.1.elapsed() < STOPPED {
        assert!(begun.elapsed() < PATIENCE, "{} bytes, and no end", last.0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = taken.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

async fn length(mut body: Incoming) -> usize {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    length
}

/// Reads only when it is told to, and answers with how much there was.
async fn patient() -> (Upstream, watch::Sender<bool>) {
    let (go, gone) = watch::channel(false);
    let upstream = Upstream::answering(move |request: Request<Incoming>| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|is| *is).await.unwrap();
            text(
                StatusCode::OK,
                length(request.into_body()).await.to_string(),
            )
        }
    })
    .await;
    (upstream, go)
}

async fn check_up(proxies: Vec<Proxy>, go: watch::Sender<bool>) {
    let mut client = Client::http2(proxies[0].address).await;
    let (body, taken) = counted();
    let sending = tokio::spawn(async move {
        let sent = client.start(request("POST", "/", "").map(|_| body)).await;
        sent.unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
    });

    let stopped = until_stopped(&taken).await;
    assert!(
        stopped <= ON_THE_WAY * proxies.len(),
        "{stopped} bytes are taken"
    );

    go.send_replace(true);
    let counted = timeout(PATIENCE, sending).await.expect("in time").unwrap();
    assert_eq!(counted, ALL.to_string());
}

async fn check_down(proxies: Vec<Proxy>, taken: Arc<AtomicUsize>) {
    let mut client = Client::http2(proxies[0].address).await;
    let question = request("GET", "/", "").map(BodyExt::boxed);
    let response = client.start(question).await.unwrap();

    let stopped = until_stopped(&taken).await;
    assert!(
        stopped <= ON_THE_WAY * proxies.len(),
        "{stopped} bytes are taken"
    );

    assert!(!response.body().is_end_stream());
    let length = timeout(PATIENCE, length(response.into_body())).await;
    assert_eq!(length.expect("in time"), ALL);
}

/// Answers with everything.
async fn generous() -> (Upstream, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let upstream = Upstream::answering(move |_| {
        let taken = Arc::clone(&counted);
        async move { Response::new(Counted { taken }.boxed()) }
    })
    .await;
    (upstream, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_for_an_upstream_that_does_not_read_is_not_taken() {
    let (upstream, go) = patient().await;
    let proxy = Proxy::to(cluster("c", &[upstream.address])).await;
    check_up(vec![proxy], go).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_for_a_client_that_does_not_read_is_not_taken() {
    let (upstream, taken) = generous().await;
    let proxy = Proxy::to(cluster("c", &[upstream.address])).await;
    check_down(vec![proxy], taken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_by_mutual_tls_is_not_taken_for_an_upstream_that_does_not_read() {
    let (upstream, go) = patient().await;
    let (client, server) = mutual_tls(upstream.address).await;
    check_up(vec![client, server], go).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_by_mutual_tls_is_not_taken_for_a_client_that_does_not_read() {
    let (upstream, taken) = generous().await;
    let (client, server) = mutual_tls(upstream.address).await;
    check_down(vec![client, server], taken).await;
}
