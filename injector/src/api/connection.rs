//! Connections to the API.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::{ApiError, Endpoint, TIMEOUT};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the API that nothing has been sent on.
pub struct Connection {
    stream: Stream,
    headers: HeaderMap,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connection {
    /// `host` and, where there is a token, `authorization`.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl Endpoint {
    pub(super) fn display(&self) -> String {
        match self {
            Endpoint::Unix { path } => path.display().to_string(),
            Endpoint::Tcp { authority, .. } => authority.clone(),
        }
    }

    fn headers(&self) -> HeaderMap {
        let (host, token) = match self {
            Endpoint::Unix { .. } => ("localhost", None),
            Endpoint::Tcp { authority, token } => (authority.as_str(), token.as_deref()),
        };
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(HOST, host);
        }
        let token = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        if let Some(mut token) = token {
            token.set_sensitive(true);
            headers.insert(AUTHORIZATION, token);
        }
        headers
    }

    async fn dial(&self) -> io::Result<Stream> {
        match self {
            Endpoint::Unix { path } => UnixStream::connect(path).await.map(Stream::Unix),
            Endpoint::Tcp { authority, .. } => {
                let stream = TcpStream::connect(authority.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

pub(super) async fn open(endpoint: &Endpoint) -> Result<Connection, ApiError> {
    let dialled = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.dial()).await;
    let stream = dialled
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| ApiError::Connect {
            endpoint: endpoint.display(),
            source,
        })?;
    Ok(Connection {
        stream,
        headers: endpoint.headers(),
    })
}

pub(super) async fn send<B>(
    endpoint: &Endpoint,
    mut request: Request<B>,
) -> Result<Response<Incoming>, ApiError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let what = format!("{} {}", request.method(), request.uri().path());
    let failed = |source| ApiError::Transport {
        what: what.clone(),
        source,
    };
    let connection = open(endpoint).await?;
    for (name, value) in connection.headers() {
        request.headers_mut().insert(name.clone(), value.clone());
    }

    let handshake = http1::handshake(TokioIo::new(connection));
    let (mut sender, driver) = handshake.await.map_err(failed)?;
    // Ends with the response's body, or when the caller drops it.
    tokio::spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "connection to the API ended");
        }
    });
    // An upload may take its time: the deadline is for what has no body to send.
    if request.body().is_end_stream() || request.body().size_hint().exact().is_some() {
        let answer = tokio::time::timeout(TIMEOUT, sender.send_request(request)).await;
        return answer
            .map_err(|_| ApiError::TimedOut { what: what.clone() })?
            .map_err(failed);
    }
    sender.send_request(request).await.map_err(failed)
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").finish_non_exhaustive()
    }
}
