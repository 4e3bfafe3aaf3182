//! Upstreams of the soak: HTTP that gives back what it is sent, and TCP that does.

use std::convert::Infallible;
use std::net::SocketAddr;

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
use tokio::task::{JoinHandle, JoinSet};

/// Bytes of a large response.
pub(crate) const LARGE: usize = 1024 * 1024;
const PIECE: usize = 16 * 1024;

type Body = BoxBody<Bytes, hyper::Error>;

/// All of them.
pub(crate) struct Upstreams {
    http: Vec<Upstream>,
    tcp: Vec<Upstream>,
}

struct Upstream {
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
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

    /// Ends one, connections and all, and starts another.
    pub(crate) async fn replace(&mut self, port: u16) {
        self.http.retain(|one| one.port != port);
        self.http.push(http().await);
    }
}

async fn http() -> Upstream {
    let listener = listener().await;
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let service = service_fn(answer);
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    });
    Upstream { port, task }
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
    let listener = listener().await;
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(give_back(stream));
            while connections.try_join_next().is_some() {}
        }
    });
    Upstream { port, task }
}

async fn give_back(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
        let _ = to.shutdown().await;
    }
}
