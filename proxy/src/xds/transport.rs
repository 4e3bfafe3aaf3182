//! The gRPC channel to the control plane, over a unix socket or TCP.
//!
//! The xDS stream and the identity service share it. A channel is made for each connection attempt; keep-alive
//! pings tell a dead peer from a silent one.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::dialogue::Variant;

/// Where the control plane listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A unix socket.
    Socket(PathBuf),
    /// A TCP address, without TLS.
    Address(SocketAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Socket(path) => write!(formatter, "{}", path.display()),
            Target::Address(address) => write!(formatter, "{address}"),
        }
    }
}

/// A control plane: where its servers are, and how they are spoken with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Servers that know the same, in the order of preference; at least one.
    pub targets: Vec<Target>,
    /// Which variant of xDS they speak.
    pub variant: Variant,
}

impl ControlPlane {
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
            match connect(target).await {
                Ok(channel) => return Ok((target.clone(), channel)),
                Err(error) => tracing::debug!(%target, %error, "the next one is tried"),
            }
        }
        let last = &self.targets[(first + count - 1) % count];
        match connect(last).await {
            Ok(channel) => Ok((last.clone(), channel)),
            Err(error) => Err((last.clone(), error)),
        }
    }
}

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A ping is sent after this long, and must be answered within the next.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects once.
///
/// # Errors
/// When the target does not accept within five seconds.
pub async fn connect(target: &Target) -> Result<Channel, tonic::transport::Error> {
    // The authority is required by HTTP/2 and means nothing on a unix socket.
    let endpoint = Endpoint::from_static("http://xds.weft.dev")
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    match target.clone() {
        Target::Socket(path) => {
            let connector = service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
        Target::Address(address) => {
            let connector = service_fn(move |_: Uri| async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            });
            endpoint.connect_with_connector(connector).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_socket_is_an_error_at_once() {
        let target = Target::Socket("/nonexistent/xds.sock".into());

        assert!(connect(&target).await.is_err());
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
        let control_plane = ControlPlane {
            targets: vec![missing.clone(), Target::Socket(socket.clone()), missing],
            variant: Variant::Delta,
        };

        for turn in 0..4 {
            let (target, _) = control_plane.connect(turn).await.expect("connected");
            assert_eq!(target, Target::Socket(socket.clone()), "turn {turn}");
        }
        accepting.abort();
    }
}
