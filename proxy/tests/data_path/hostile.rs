//! Clients that want the proxy to wait, or to keep: heads that never end, thousands of connections that say nothing,
//! streams that nobody reads. (Floods of HTTP/2 frames are cases of tests/conformance.)

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_proxy::config::http::{Http2Options, HttpConfig};
use weft_proxy::config::route::Forward;

use crate::client::{Client, request};
use crate::config::{LISTENER, all_to, cluster, http};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, until};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn requests() -> HttpConfig {
    http(all_to(Forward::to("c")))
}

async fn with(config: HttpConfig) -> (Upstream, Proxy) {
    let upstream = Upstream::named("app").await;
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;
    (upstream, proxy)
}

/// Reads to the end, whatever the end is, without a byte more than this before it.
async fn ended(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = vec![];
    let reading = stream.read_to_end(&mut said);
    let _ = timeout(PATIENCE, reading).await.expect("it ends in time");
    said
}

/// Sends the bytes of a head one by one, for as long as anybody listens.
async fn dribble(mut stream: TcpStream) -> Vec<u8> {
    let (mut from, mut to) = stream.split();
    let writing = async {
        to.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-long: ")
            .await?;
        loop {
            to.write_all(b"a").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut said = vec![];
    let reading = async {
        let _ = from.read_to_end(&mut said).await;
    };
    let both = async {
        tokio::select! {
            _ = async { let _: std::io::Result<()> = writing.await; } => {}
            () = reading => {}
        }
    };
    timeout(PATIENCE, both).await.expect("it ends in time");
    said
}

#[tokio::test]
async fn a_head_that_comes_a_byte_at_a_time_has_its_limit() {
    let config = HttpConfig {
        request_headers_timeout: Some(Duration::from_millis(300)),
        ..requests()
    };
    let (upstream, proxy) = with(config).await;

    dribble(TcpStream::connect(proxy.address).await.unwrap()).await;

    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_head_that_never_ends_is_an_idle_connection() {
    let config = HttpConfig {
        idle_timeout: Some(Duration::from_millis(300)),
        ..requests()
    };
    let (upstream, proxy) = with(config).await;

    dribble(TcpStream::connect(proxy.address).await.unwrap()).await;

    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn no_more_is_read_of_a_head_than_it_may_have() {
    let (upstream, proxy) = with(requests()).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let mut stream = stream;
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    // The proxy closes with bytes unread, which is a reset to whoever still writes.
    let piece = vec![b'a'; 64 * 1024];
    let mut written = 0;
    while written < 64 * 1024 * 1024 && stream.write_all(&piece).await.is_ok() {
        written += piece.len();
    }

    assert!(written < 32 * 1024 * 1024, "{written}");
    ended(&mut stream).await;
    assert_eq!(upstream.requests(), 0);
}

/// Room for a thousand connections with both ends in this process.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, most).unwrap();
}

#[tokio::test]
async fn a_thousand_connections_that_say_nothing_are_closed_and_leave_nothing() {
    raise_limit();
    let config = HttpConfig {
        idle_timeout: Some(Duration::from_secs(1)),
        codec: weft_proxy::config::http::Codec::Http1,
        ..requests()
    };
    let (_upstream, proxy) = with(config).await;
    let mut idle = vec![];
    for _ in 0..1000 {
        idle.push(TcpStream::connect(proxy.address).await.unwrap());
    }
    let live = Arc::clone(&proxy.data_plane.snapshot().listeners[LISTENER].live);
    until(|| live.accepted.load(Ordering::Relaxed) == 1000).await;

    // Who has something to say is heard all the same.
    assert_eq!(proxy.get("/").await.status, 200);
    for stream in &mut idle {
        assert!(ended(stream).await.is_empty());
    }

    until(|| live.open.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn a_hello_that_never_ends_has_its_limit() {
    let proxy = crate::tls::strict().await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();

    // A record of a length that is never reached.
    stream
        .write_all(&[0x16, 0x03, 0x01, 0x40, 0x00, 0x01])
        .await
        .unwrap();

    assert!(ended(&mut stream).await.len() < 100, "an alert at most");
    let live = Arc::clone(&proxy.data_plane.snapshot().listeners[LISTENER].live);
    until(|| live.openings_timed_out.load(Ordering::Relaxed) == 1).await;
}

/// Answers without an end, and counts what is taken of it.
async fn endless() -> (Upstream, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let upstream = Upstream::answering(move |_| {
        let counted = Arc::clone(&counted);
        async move {
            let pieces = futures_util::stream::repeat_with(move || {
                counted.fetch_add(PIECE, Ordering::SeqCst);
                Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(&[b'a'; PIECE])))
            });
            Response::new(StreamBody::new(pieces).boxed())
        }
    })
    .await;
    (upstream, taken)
}

const PIECE: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_take_no_more_than_their_windows() {
    const STREAMS: usize = 20;
    let (upstream, taken) = endless().await;
    let config = HttpConfig {
        http2: Http2Options {
            max_concurrent_streams: Some(20),
            ..Http2Options::default()
        },
        ..requests()
    };
    let proxy = Proxy::serving(config, [cluster("c", &[upstream.address])]).await;
    let mut client = Client::http2(proxy.address).await;
    let mut unread = vec![];
    for _ in 0..STREAMS {
        let question = request("GET", "/", "").map(BodyExt::boxed);
        unread.push(client.start(question).await.unwrap());
    }

    // All but the windows of the connections stays at the upstream; each stream has a buffer for sending.
    let mut before = 0;
    until(|| {
        let now = taken.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now
    })
    .await;
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken <= STREAMS * 2 * 1024 * 1024, "{taken} bytes");
    assert_eq!(unread.len(), STREAMS);
    drop(unread);
    let _: SocketAddr = proxy.address;
}
