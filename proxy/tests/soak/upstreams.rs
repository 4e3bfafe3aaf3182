//! Upstreams of the soak: HTTP that gives back what it is sent, and TCP that does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes of a large response.
pub(crate) const LARGE: usize = 1024 * 1024;
const PIECE: usize = 16 * 1024;
/// How long what an ending upstream has begun may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Body = BoxBody<Bytes, hyper::Error>;

/// All of them.
pub(crate) struct Upstreams {
    http: Vec<Upstream>,
    tcp: Vec<Upstream>,
}

/// Accepts nothing more once it is dropped, closes what is idle, and finishes what it has begun.
struct Upstream {
    port: u16,
    _ends: DropGuard,
}

async fn listener() -> TcpListener {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    TcpListener::bind(any).await.expect("a port")
}

impl Upstreams {
    pub(crate) async fn start() -> Self {
        let mut upstreams = Upstreams {
            http: vec![],
            tcp: vec![],
        };
        for _ in 0..4 {
            upstreams.http.push(http().await);
            upstreams.tcp.push(tcp().await);
        }
        upstreams
    }

    pub(crate) fn http_ports(&self) -> Vec<u16> {
        self.http.iter().map(|one| one.port).collect()
    }

    pub(crate) fn tcp_ports(&self) -> Vec<u16> {
        self.tcp.iter().map(|one| one.port).collect()
    }

    /// Ends one, and starts another.
    pub(crate) async fn replace(&mut self, port: u16) {
        self.http.retain(|one| one.port != port);
        self.http.push(http().await);
    }
}

async fn http() -> Upstream {
    upstream(|stream, ending| async move {
        let server = auto::Builder::new(TokioExecutor::new());
        let mut connection =
            pin!(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
        let ended = tokio::select! {
            _ = connection.as_mut() => true,
            () = ending.cancelled() => false,
        };
        if !ended {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(PATIENCE, connection).await;
        }
    })
    .await
}

/// Serves each connection in a task, with what tells it that the upstream ends.
async fn upstream<F, S>(serve: F) -> Upstream
where
    F: Fn(TcpStream, CancellationToken) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = listener().await;
    let port = listener.local_addr().unwrap().port();
    let ending = CancellationToken::new();
    let ends = ending.clone().drop_guard();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    tokio::spawn(serve(stream, ending.clone()));
                }
                () = ending.cancelled() => break,
            }
        }
    });
    Upstream { port, _ends: ends }
}

/// Something large, or what was sent.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = match request.uri().path() {
        "/large" => {
            let piece = || Ok(Frame::data(Bytes::from_static(&[b'a'; PIECE])));
            let pieces = (0..LARGE / PIECE).map(move |_| piece());
            StreamBody::new(stream::iter(pieces)).boxed()
        }
        "/small" => Full::new(Bytes::from_static(b"small"))
            .map_err(|never| match never {})
            .boxed(),
        _ => request.into_body().boxed(),
    };
    Ok(Response::new(body))
}

async fn tcp() -> Upstream {
    upstream(|stream, _| give_back(stream)).await
}

async fn give_back(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}
