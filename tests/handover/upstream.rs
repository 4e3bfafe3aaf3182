//! What is behind the proxy: a server of HTTP/1.1, and one that says every byte again.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Both servers, until dropped.
pub(crate) struct Upstream {
    /// Of HTTP/1.1.
    pub(crate) web: SocketAddr,
    /// Of bytes.
    pub(crate) bytes: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bytes = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = (web.local_addr().unwrap(), bytes.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = web.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = bytes.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Upstream {
            web: addresses.0,
            bytes: addresses.1,
            _tasks: tasks,
        }
    }
}

async fn answer(stream: TcpStream) {
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"answer"))))
    });
    // A proxy that ends closes its connections: no failure of the upstream's.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
