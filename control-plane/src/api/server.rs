//! Listening: connections, who is at their other end, and how long they may dawdle.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::Api;
use crate::auth::{Caller, is_owner, user_name};
use crate::refusal::Refusal;

/// Connections at once, on each of the two listeners.
const CONNECTIONS: usize = 2048;
/// How long a request's head may take to arrive.
const HEAD: Duration = Duration::from_secs(15);
/// How long requests in flight are waited for at the end.
const GRACE: Duration = Duration::from_secs(3);
/// A pause after an accept that failed, so that a lack of descriptors does not become a busy loop.
const PAUSE: Duration = Duration::from_millis(50);

/// The unix socket for the mesh's owner, in place of one that an earlier daemon left.
pub(crate) fn bind_owner_socket(path: &Path) -> io::Result<UnixListener> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    // Between bind and here the directory alone protects it; peers are checked anyway.
    fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
    fs::rename(&beside, path)?;
    Ok(listener)
}

/// Serves callers with a token, plain or with TLS as they begin, until cancelled.
pub(crate) async fn serve_tcp(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    cancelled: CancellationToken,
) {
    let server = Arc::new(Server::new(api));
    let acceptor = TlsAcceptor::from(tls);
    let mut handshakes = JoinSet::new();
    loop {
        let permit = server.permit().await;
        let accepted = tokio::select! {
            () = cancelled.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (server, acceptor) = (Arc::clone(&server), acceptor.clone());
                handshakes.spawn(async move { server.greet(stream, acceptor, permit).await });
                while handshakes.try_join_next().is_some() {}
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection to the API");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    handshakes.shutdown().await;
    if let Some(server) = Arc::into_inner(server) {
        server.finish().await;
    }
}

/// Serves the mesh's owner, until cancelled.
pub(crate) async fn serve_unix(
    api: Arc<Api>,
    listener: UnixListener,
    cancelled: CancellationToken,
) {
    let own = rustix::process::geteuid().as_raw();
    let server = Server::new(api);
    loop {
        let permit = server.permit().await;
        let accepted = tokio::select! {
            () = cancelled.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let peer = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
        match peer {
            Ok((uid, stream)) if is_owner(uid, own) => {
                let caller = Caller {
                    user: user_name(uid),
                };
                server.start(stream, Some(caller), permit);
            }
            Ok((uid, _)) => tracing::warn!(uid, "a stranger at the owner's socket was turned away"),
            Err(error) => {
                tracing::warn!(%error, "accepting a connection to the API");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    server.finish().await;
}

struct Server {
    api: Arc<Api>,
    connections: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl Server {
    fn new(api: Arc<Api>) -> Self {
        Self {
            api,
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            graceful: GracefulShutdown::new(),
        }
    }

    /// Finds out whether a connection begins with TLS, and serves it either way.
    async fn greet(
        &self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        /// The first byte of a TLS record that holds a handshake (RFC 8446 §5.1); no method of HTTP begins so.
        const HANDSHAKE: u8 = 22;
        let _ = stream.set_nodelay(true);
        let mut first = [0];
        let peeked = tokio::time::timeout(HEAD, stream.peek(&mut first)).await;
        match peeked {
            Ok(Ok(1)) if first == [HANDSHAKE] => {
                match tokio::time::timeout(HEAD, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => self.start(stream, None, permit),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a TLS handshake with the API failed")
                    }
                    Err(_) => tracing::debug!("a TLS handshake with the API took too long"),
                }
            }
            Ok(Ok(1)) => self.start(stream, None, permit),
            _ => tracing::debug!("a connection to the API ended before it said anything"),
        }
    }

    /// Waits where there are too many connections: newcomers queue in the kernel.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    fn start<S>(&self, stream: S, caller: Option<Caller>, permit: Option<OwnedSemaphorePermit>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.api.router();
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            if let Some(caller) = &caller {
                request.extensions_mut().insert(caller.clone());
            }
            let router = router.clone();
            async move { router.oneshot(request.map(Body::new)).await }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(64 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(HEAD))
            .max_concurrent_streams(256)
            .max_header_list_size(64 * 1024);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the API ended");
            }
            drop(permit);
        });
    }

    async fn finish(self) {
        if tokio::time::timeout(GRACE, self.graceful.shutdown())
            .await
            .is_err()
        {
            tracing::debug!("requests to the API were cut off at the end");
        }
    }
}

/// Lets a request pass that comes through the owner's socket or carries the token. Whether the daemon is
/// alive is no secret.
pub(super) async fn authenticate(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Infallible> {
    let is_public = matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz");
    let is_known = request.extensions().get::<Caller>().is_some();
    if !is_public && !is_known {
        if !api.token.admits(request.headers()) {
            return Ok(Refusal::Unauthorized.into_response());
        }
        request.extensions_mut().insert(Caller {
            user: "token".to_owned(),
        });
    }
    Ok(next.run(request).await)
}
