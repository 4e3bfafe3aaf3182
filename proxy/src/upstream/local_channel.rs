//! Local channels: the way to a sidecar of the same machine that needs neither TCP nor TLS.
//!
//! The socket broker gives each side one end of a socket pair, which nobody else can read or write, and tells it who
//! has the other. Each believes the other as in a handshake; then they speak in the clear. Where there is no channel
//! for whatever reason, `dial` makes a connection with TLS, and that says what is wrong, if anything is.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use weft_proto::handoff::{BrokerRequest, Certificates, welcome};

use super::host_network::Broker;
use crate::config::identity::Identity;
use crate::config::tls::UpstreamTls;
use crate::tls::introduced::{Side, believe};

/// How long broker and peer may take together.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long nobody is asked after somebody has taken longer.
const PAUSE: Duration = Duration::from_secs(30);

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum NoChannel {
    /// Broker or peer were too slow a moment ago.
    #[error("local channels pause after one that took too long")]
    Paused,
    /// One was too slow just now.
    #[error("the local channel took longer than {PATIENCE:?}")]
    TooLong,
    /// The broker has none.
    #[error("the socket broker has no local channel")]
    None(#[source] io::Error),
    /// The peer is not who it should be.
    #[error("the peer of the local channel is not believed")]
    Peer(#[from] rustls::Error),
    /// The peer did not want it.
    #[error("the peer closed the local channel")]
    Closed(#[source] io::Error),
}

/// Opens local channels.
#[derive(Clone)]
pub struct LocalChannels {
    broker: Arc<Broker>,
    paused_until: Arc<Mutex<Option<Instant>>>,
}

impl LocalChannels {
    /// Those of a broker.
    pub fn of(broker: Arc<Broker>) -> Self {
        LocalChannels {
            broker,
            paused_until: Arc::default(),
        }
    }

    /// A channel to the sidecar at an address, ready for the first byte.
    ///
    /// # Errors
    /// There is none, now.
    pub async fn open(
        &self,
        identity: &Arc<Identity>,
        tls: &UpstreamTls,
        destination: SocketAddr,
        protocol: Option<&str>,
    ) -> Result<UnixStream, NoChannel> {
        let is_paused = |until: &Instant| Instant::now() < *until;
        if self.paused_until.lock().as_ref().is_some_and(is_paused) {
            return Err(NoChannel::Paused);
        }
        let request = BrokerRequest::Introduce {
            destination,
            protocol: protocol.map(str::to_owned),
            server_name: tls.sni.as_deref().map(str::to_owned),
            certificates: certificates(identity),
        };
        let introduced = async {
            let introduced = self.broker.introduce(&request, PATIENCE).await;
            let (introduction, socket) = introduced.map_err(NoChannel::None)?;
            believe(identity, &introduction, &tls.believes.names, Side::Server)?;
            let expected = welcome(protocol);
            welcomed(socket, expected).await.map_err(NoChannel::Closed)
        };
        let opened = tokio::time::timeout(PATIENCE, introduced).await;
        opened.unwrap_or_else(|_| {
            *self.paused_until.lock() = Some(Instant::now() + PAUSE);
            Err(NoChannel::TooLong)
        })
    }
}

/// What an identity shows of itself.
pub fn certificates(identity: &Identity) -> Certificates {
    Certificates(identity.key.cert.iter().map(|der| der.to_vec()).collect())
}

/// The channel, once the peer has said that it believes us.
async fn welcomed(socket: OwnedFd, expected: u8) -> io::Result<UnixStream> {
    let channel = std::os::unix::net::UnixStream::from(socket);
    channel.set_nonblocking(true)?;
    let mut channel = UnixStream::from_std(channel)?;
    match channel.read_u8().await? == expected {
        true => Ok(channel),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
