//! A fake upstream: answers HTTP/1.1 and HTTP/2 on loopback as it is told, and counts.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) type Body = BoxBody<Bytes, Infallible>;
type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// A server that is gone when dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
    cancelled: AtomicUsize,
}

/// Counts a request that is dropped before it has been answered.
struct Unanswered(Option<Arc<Counts>>);

impl Unanswered {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(counts) = &self.0 {
            counts.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

impl Upstream {
    /// Answers each request as the function says.
    pub(crate) async fn answering<F, A>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start(Arc::new(move |request| Box::pin(answer(request)))).await
    }

    /// Answers 200 with a name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::answering(move |_| async move { text(StatusCode::OK, name) }).await
    }

    /// Answers with a status.
    pub(crate) async fn failing(status: StatusCode) -> Self {
        Self::answering(move |_| async move { text(status, "failed") }).await
    }

    /// Never answers.
    pub(crate) async fn hanging() -> Self {
        Self::answering(|_| std::future::pending()).await
    }

    /// Answers with what was asked: method, path, headers as lines, then the body.
    pub(crate) async fn echoing() -> Self {
        Self::answering(|request| async move {
            let mut lines = format!(
                "{} {} {:?}\n",
                request.method(),
                request.uri(),
                request.version()
            );
            for (name, value) in request.headers() {
                lines.push_str(&format!(
                    "{name}: {}\n",
                    String::from_utf8_lossy(value.as_bytes())
                ));
            }
            let body = request
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes());
            lines.push_str(&format!(
                "\n{}",
                String::from_utf8_lossy(&body.unwrap_or_default())
            ));
            text(StatusCode::OK, lines)
        })
        .await
    }

    /// A WebSocket that says four bytes again, louder.
    pub(crate) async fn shouting() -> Self {
        Self::answering(|mut request| async move {
            assert_eq!(request.headers()["upgrade"], "websocket");
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut heard = [0; 4];
                io.read_exact(&mut heard).await.unwrap();
                io.write_all(&heard.map(|byte| byte.to_ascii_uppercase()))
                    .await
                    .unwrap();
                io.shutdown().await.unwrap();
            });
            let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
            let headers = response.headers_mut();
            headers.insert("connection", HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("websocket"));
            response
        })
        .await
    }

    async fn start(handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let (handler, counts) = (Arc::clone(&handler), Arc::clone(&counted));
                let service = service_fn(move |request| {
                    counts.requests.fetch_add(1, Ordering::SeqCst);
                    let unanswered = Unanswered(Some(Arc::clone(&counts)));
                    let answer = handler(request);
                    async move {
                        let answer = answer.await;
                        unanswered.answered();
                        Ok::<_, Infallible>(answer)
                    }
                });
                connections.spawn(async move {
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http2().enable_connect_protocol();
                    let io = TokioIo::new(stream);
                    let _ = builder.serve_connection_with_upgrades(io, service).await;
                });
            }
        });
        Upstream {
            address,
            counts,
            task,
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    pub(crate) async fn until_requests(&self, count: usize) {
        until(|| self.requests() >= count).await;
    }

    pub(crate) async fn until_cancelled(&self, count: usize) {
        until(|| self.counts.cancelled.load(Ordering::SeqCst) >= count).await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for a condition, and not for ever.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waited)
        .await
        .expect("the condition holds in time");
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
