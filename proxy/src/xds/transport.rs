//! The gRPC channel to a control plane, over a unix socket or TCP, in the clear or with TLS.
//!
//! The xDS stream and the identity service share it. A channel is made for each connection attempt; keep-alive
//! pings tell a dead peer from a silent one.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::control_plane_tls::ControlPlaneTls;
use super::dialogue::Variant;
use crate::tls;

/// Where the control plane listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A unix socket.
    Socket(PathBuf),
    /// A TCP address.
    Address(SocketAddr),
    /// A host by name, and its port. It is resolved whenever it is connected to.
    Host(String, u16),
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Socket(path) => write!(formatter, "{}", path.display()),
            Target::Address(address) => write!(formatter, "{address}"),
            Target::Host(host, port) => write!(formatter, "{host}:{port}"),
        }
    }
}

/// A control plane: where its servers are, and how they are spoken with.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlPlane {
    /// Servers that know the same, in the order of preference; at least one.
    pub targets: Vec<Target>,
    /// Which variant of xDS they speak.
    pub variant: Variant,
    /// What they are called in requests: `:authority`.
    pub authority: Arc<str>,
    /// What each stream is opened with, besides.
    pub metadata: HeaderMap,
    /// TLS towards them; none: in the clear.
    pub tls: Option<Arc<ControlPlaneTls>>,
}

impl ControlPlane {
    /// Servers without TLS.
    pub fn in_the_clear(targets: Vec<Target>, variant: Variant) -> Self {
        Self {
            targets,
            variant,
            authority: DEFAULT_AUTHORITY.into(),
            metadata: HeaderMap::new(),
            tls: None,
        }
    }

    /// Connects to the first target that accepts, beginning with the one whose `turn` it is.
    ///
    /// # Errors
    /// None of them accepts; the last one and why.
    pub async fn connect(
        &self,
        turn: usize,
    ) -> Result<(Target, Channel), (Target, tonic::transport::Error)> {
        let count = self.targets.len();
        let first = turn % count.max(1);
        for target in self.targets.iter().cycle().skip(first).take(count - 1) {
            match self.connect_to(target).await {
                Ok(channel) => return Ok((target.clone(), channel)),
                Err(error) => tracing::debug!(%target, %error, "the next one is tried"),
            }
        }
        let last = &self.targets[(first + count - 1) % count];
        match self.connect_to(last).await {
            Ok(channel) => Ok((last.clone(), channel)),
            Err(error) => Err((last.clone(), error)),
        }
    }

    /// Connects once; fails when the target does not accept, or is not believed, within five seconds.
    async fn connect_to(&self, target: &Target) -> Result<Channel, tonic::transport::Error> {
        let endpoint = self.endpoint();
        let (target, tls) = (target.clone(), self.tls.clone());
        match tls {
            None => {
                let connector = service_fn(move |_: Uri| stream(target.clone()));
                endpoint.connect_with_connector(connector).await
            }
            Some(tls) => {
                let connector = service_fn(move |_: Uri| encrypted(target.clone(), tls.clone()));
                endpoint.connect_with_connector(connector).await
            }
        }
    }

    fn endpoint(&self) -> Endpoint {
        let scheme = match self.tls {
            Some(_) => "https",
            None => "http",
        };
        // What is no authority, such as a name with spaces, means nothing to a server either.
        let origin = format!("{scheme}://{}", self.authority)
            .parse()
            .unwrap_or(Uri::from_static("http://xds.weft.dev"));
        Endpoint::from_static("http://xds.weft.dev")
            .origin(origin)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
    }
}

/// An authority is required by HTTP/2, and means nothing on a unix socket.
const DEFAULT_AUTHORITY: &str = "xds.weft.dev";
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A ping is sent after this long, and must be answered within the next.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What is spoken within TLS.
const ALPN: &[u8] = b"h2";

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Io = TokioIo<Box<dyn Stream>>;

async fn stream(target: Target) -> io::Result<Io> {
    Ok(TokioIo::new(raw(target).await?.0))
}

async fn encrypted(target: Target, tls: Arc<ControlPlaneTls>) -> io::Result<Io> {
    let current = tokio::task::spawn_blocking(move || tls.current());
    let tls = current.await.map_err(io::Error::other)?;
    let connector = tls::client::connector_of_configuration(&tls).map_err(io::Error::other)?;
    let (stream, address) = raw(target).await?;
    let name = tls::client::server_name(&tls, address);
    let stream = connector
        .with_alpn(vec![ALPN.to_vec()])
        .connect(name, stream)
        .await?;
    Ok(TokioIo::new(Box::new(stream) as _))
}

/// Bytes to a target, and its address; that of a unix socket is loopback.
async fn raw(target: Target) -> io::Result<(Box<dyn Stream>, IpAddr)> {
    let stream = match target {
        Target::Socket(path) => {
            let stream = UnixStream::connect(path).await?;
            return Ok((Box::new(stream), Ipv4Addr::LOCALHOST.into()));
        }
        Target::Address(address) => TcpStream::connect(address).await?,
        Target::Host(host, port) => TcpStream::connect((host, port)).await?,
    };
    stream.set_nodelay(true)?;
    let address = stream.peer_addr()?.ip();
    Ok((Box::new(stream), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_socket_is_an_error_at_once() {
        let target = Target::Socket("/nonexistent/xds.sock".into());

        let control_plane = ControlPlane::in_the_clear(vec![target], Variant::Delta);

        assert!(control_plane.connect(0).await.is_err());
    }

    #[tokio::test]
    async fn a_target_that_does_not_accept_is_passed_over_whoevers_turn_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("xds.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let accepting = tokio::spawn(async move {
            let mut streams = vec![];
            while let Ok((stream, _)) = listener.accept().await {
                streams.push(stream);
            }
        });
        let missing = Target::Socket("/nonexistent/xds.sock".into());
        let targets = vec![missing.clone(), Target::Socket(socket.clone()), missing];
        let control_plane = ControlPlane::in_the_clear(targets, Variant::Delta);

        for turn in 0..4 {
            let (target, _) = control_plane.connect(turn).await.expect("connected");
            assert_eq!(target, Target::Socket(socket.clone()), "turn {turn}");
        }
        accepting.abort();
    }
}
