//! Connections into sandboxes, handed over by the node: for the sidecar's health and for probes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use weft_proto::handoff::{self, BrokerReply, NodeRequest};

/// The node's hand-off socket.
#[derive(Debug, Clone)]
pub(super) struct HandOff {
    socket: PathBuf,
}

impl HandOff {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A TCP connection to an address as seen from inside a sandbox.
    pub(super) async fn dial(
        &self,
        sandbox: &str,
        address: SocketAddr,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        let request = NodeRequest::Dial {
            sandbox: sandbox.to_owned(),
            address,
            timeout_millis: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        };
        within(timeout, self.exchange(&request)).await
    }

    async fn exchange(&self, request: &NodeRequest) -> io::Result<TcpStream> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        handoff::send(&mut stream, request, None).await?;
        match handoff::receive::<BrokerReply>(&mut stream).await? {
            (BrokerReply::Socket, Some(socket)) => connected(socket),
            (BrokerReply::Failed { errno: 0, reason }, _) => Err(io::Error::other(reason)),
            (BrokerReply::Failed { errno, .. }, _) => Err(io::Error::from_raw_os_error(errno)),
            (reply, _) => Err(io::Error::other(format!("the node answered {reply:?}"))),
        }
    }

    /// The status of a GET request.
    pub(super) async fn get(
        &self,
        sandbox: &str,
        address: SocketAddr,
        path: &str,
        headers: &[(String, String)],
        timeout: Duration,
    ) -> io::Result<StatusCode> {
        within(timeout, async {
            let stream = self.dial(sandbox, address, timeout).await?;
            let mut request = Request::get(path)
                .header(http::header::HOST, address.to_string())
                .header(http::header::USER_AGENT, "weft-probe")
                .header(http::header::CONNECTION, "close");
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request
                .body(Empty::<Bytes>::new())
                .map_err(io::Error::other)?;
            status(stream, request).await
        })
        .await
    }
}

async fn status(stream: TcpStream, request: Request<Empty<Bytes>>) -> io::Result<StatusCode> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    // One future owns both halves: nothing is left behind when the deadline comes.
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        // The answer may have come with the end.
        _ = &mut connection => answer.await,
    };
    response
        .map(|response| response.status())
        .map_err(io::Error::other)
}

fn connected(socket: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

async fn within<T>(timeout: Duration, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeout, call)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
