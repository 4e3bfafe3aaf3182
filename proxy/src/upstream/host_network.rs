//! Sockets in the host's network, from the socket broker.
//!
//! The broker binds and dials there and passes the socket; from then on bytes take no detour. It may be
//! restarted at any time: each request finds its way to the one that runs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use weft_proto::handoff::{self, BrokerReply, BrokerRequest, Introduction};

/// Binds, dials and resolves in the host's network.
pub trait HostNetwork: Send + Sync {
    /// A listening socket, not yet registered with a runtime, non-blocking.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<std::net::TcpListener>>;
    /// A connection, not yet registered with a runtime, non-blocking.
    fn dial(
        &self,
        address: SocketAddr,
        timeout: Duration,
    ) -> BoxFuture<'_, io::Result<std::net::TcpStream>>;
    /// The addresses of a name, and how long they hold.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<(Vec<IpAddr>, Duration)>>;
}

/// The socket broker.
pub struct Broker {
    path: PathBuf,
    idle: Mutex<Vec<UnixStream>>,
}

/// No more connections to the broker are kept.
const MAX_IDLE: usize = 4;
/// How long the broker itself may take.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

impl Broker {
    /// The one whose socket is there.
    pub fn at(path: PathBuf) -> Self {
        Broker {
            path,
            idle: Mutex::new(vec![]),
        }
    }

    /// Asks; where a kept connection turns out to be of a broker that is gone, asks the next one.
    async fn ask(
        &self,
        request: &BrokerRequest,
        patience: Duration,
    ) -> io::Result<(BrokerReply, Option<OwnedFd>)> {
        let asked = async {
            let kept = self.idle.lock().pop();
            if let Some(stream) = kept
                && let Ok(answer) = self.ask_on(stream, request).await
            {
                return Ok(answer);
            }
            let stream = UnixStream::connect(&self.path).await?;
            self.ask_on(stream, request).await
        };
        tokio::time::timeout(patience, asked).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the socket broker did not answer")
        })?
    }

    async fn ask_on(
        &self,
        mut stream: UnixStream,
        request: &BrokerRequest,
    ) -> io::Result<(BrokerReply, Option<OwnedFd>)> {
        handoff::send(&mut stream, request, None).await?;
        let answer = handoff::receive(&mut stream).await?;
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(stream);
        }
        Ok(answer)
    }

    /// A local channel to the sidecar of a pod on this machine, and who that is.
    ///
    /// # Errors
    /// There is none; the ordinary way is open.
    pub async fn introduce(
        &self,
        request: &BrokerRequest,
        patience: Duration,
    ) -> io::Result<(Introduction, OwnedFd)> {
        match self.ask(request, patience).await? {
            (BrokerReply::Introduced(introduction), Some(socket)) => Ok((introduction, socket)),
            (reply, _) => Err(refusal(reply)),
        }
    }

    async fn socket(&self, request: &BrokerRequest, patience: Duration) -> io::Result<OwnedFd> {
        match self.ask(request, patience).await? {
            (BrokerReply::Socket, Some(socket)) => Ok(socket),
            (reply, _) => Err(refusal(reply)),
        }
    }
}

/// What a reply that brings nothing means.
fn refusal(reply: BrokerReply) -> io::Error {
    match reply {
        BrokerReply::Failed { errno: 0, reason } => io::Error::other(reason),
        BrokerReply::Failed { errno, .. } => io::Error::from_raw_os_error(errno),
        BrokerReply::NoSuchName => {
            io::Error::new(io::ErrorKind::NotFound, "the name does not exist")
        }
        BrokerReply::Socket | BrokerReply::Addresses { .. } | BrokerReply::Introduced(_) => {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the socket broker answered something else",
            )
        }
    }
}

impl HostNetwork for Broker {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<std::net::TcpListener>> {
        Box::pin(async move {
            let request = BrokerRequest::Listen { address };
            let listener =
                std::net::TcpListener::from(self.socket(&request, BROKER_PATIENCE).await?);
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    fn dial(
        &self,
        address: SocketAddr,
        timeout: Duration,
    ) -> BoxFuture<'_, io::Result<std::net::TcpStream>> {
        Box::pin(async move {
            let timeout_millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            let request = BrokerRequest::Dial {
                address,
                timeout_millis,
            };
            let stream = std::net::TcpStream::from(self.socket(&request, timeout).await?);
            stream.set_nonblocking(true)?;
            Ok(stream)
        })
    }

    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<(Vec<IpAddr>, Duration)>> {
        Box::pin(async move {
            let request = BrokerRequest::Resolve {
                name: name.to_owned(),
            };
            match self.ask(&request, BROKER_PATIENCE).await? {
                (
                    BrokerReply::Addresses {
                        addresses,
                        ttl_seconds,
                    },
                    _,
                ) => Ok((addresses, Duration::from_secs(ttl_seconds.into()))),
                (reply, _) => Err(refusal(reply)),
            }
        })
    }
}

/// The proxy's own network, where there is no broker: the proxy runs in the host's network itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnNetwork;

/// How long addresses hold where nobody says.
const OWN_TTL: Duration = Duration::from_secs(30);

impl HostNetwork for OwnNetwork {
    fn listen(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<std::net::TcpListener>> {
        Box::pin(async move {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    fn dial(
        &self,
        address: SocketAddr,
        timeout: Duration,
    ) -> BoxFuture<'_, io::Result<std::net::TcpStream>> {
        Box::pin(async move {
            let stream = tokio::time::timeout(timeout, tokio::net::TcpStream::connect(address));
            stream
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
                .into_std()
        })
    }

    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<(Vec<IpAddr>, Duration)>> {
        Box::pin(async move {
            let found = tokio::time::timeout(BROKER_PATIENCE, tokio::net::lookup_host((name, 0)));
            let found = found
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok((found.map(|address| address.ip()).collect(), OWN_TTL))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::net::UnixListener;

    use super::*;

    /// A broker that ends each conversation after one answer.
    fn forgetful_broker(
        path: &std::path::Path,
        served: Arc<AtomicU32>,
    ) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(path).expect("bind");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let asked = handoff::receive::<BrokerRequest>(&mut stream).await;
                let Ok((BrokerRequest::Listen { address }, _)) = asked else {
                    continue;
                };
                let socket = std::net::TcpListener::bind(address).expect("bind");
                let sent = handoff::send(&mut stream, &BrokerReply::Socket, Some(socket.as_fd()));
                sent.await.expect("send");
                served.fetch_add(1, Ordering::SeqCst);
            }
        })
    }

    #[tokio::test]
    async fn a_broker_that_was_restarted_is_found_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("broker.sock");
        let served = Arc::new(AtomicU32::new(0));
        let task = forgetful_broker(&path, Arc::clone(&served));
        let broker = Broker::at(path);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));

        for _ in 0..3 {
            let listener = broker.listen(any).await.expect("a socket");
            assert_ne!(listener.local_addr().expect("an address").port(), 0);
        }

        assert_eq!(served.load(Ordering::SeqCst), 3);
        task.abort();
    }

    #[tokio::test]
    async fn a_missing_broker_is_an_error_and_not_a_wait() {
        let broker = Broker::at("/nonexistent/broker.sock".into());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));

        let error = broker
            .dial(any, Duration::from_secs(5))
            .await
            .expect_err("no broker");

        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
