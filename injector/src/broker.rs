//! The socket broker: binds and dials in the host's network for sidecars, and passes them the sockets.
//!
//! The daemon runs it; sidecars and the node speak to it over a unix socket that everybody may open, so each
//! caller is attested by its peer credentials. A caller can listen only where its pod published a port, and dial
//! only what is no part of the host itself or of the mesh. Sidecars of this machine are introduced to each other.
//! Sockets that were passed outlive the broker.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use weft_proto::handoff::{self, BrokerReply, BrokerRequest, Certificates};

mod attest;
mod dial;
mod introductions;
mod published;
mod resolve;

pub use attest::{Attest, AttestError, Caller, SameUserNamespace};
pub use dial::DialPolicy;
pub use introductions::Resident;
pub use published::{Claim, PublishError, check_ports_free};

use introductions::{Arrival, Introductions, Wish};
use published::Published;
use resolve::Names;

/// How many callers are served at once; each sidecar keeps a few connections.
const MAX_CALLERS: usize = 4096;

/// What a broker needs.
pub struct BrokerOptions {
    /// Its socket.
    pub socket: PathBuf,
    /// Who may call.
    pub attestor: Arc<dyn Attest>,
    /// What may be dialled.
    pub dial: DialPolicy,
    /// Whether sidecars of this machine are introduced to each other.
    pub has_local_channels: bool,
    /// Usually `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The socket could not be made.
    #[error("opening the broker's socket {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A broker; clones are the same one.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    listener: UnixListener,
    attestor: Arc<dyn Attest>,
    dial: Mutex<DialPolicy>,
    names: Names,
    published: Mutex<Published>,
    introductions: Mutex<Introductions>,
    callers: Arc<Semaphore>,
}

impl Broker {
    /// Opens the broker's socket, in place of one that a former broker left. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn bind(options: BrokerOptions) -> Result<Self, BrokerError> {
        let listener = open_socket(&options.socket).map_err(|source| BrokerError::Socket {
            path: options.socket.clone(),
            source,
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                listener,
                attestor: options.attestor,
                dial: Mutex::new(options.dial),
                names: Names::new(options.resolv_conf),
                published: Mutex::new(Published::default()),
                introductions: Mutex::new(Introductions::new(options.has_local_channels)),
                callers: Arc::new(Semaphore::new(MAX_CALLERS)),
            }),
        })
    }

    /// Serves callers until told to stop.
    pub async fn serve(&self, shutdown: CancellationToken) {
        let mut conversations = JoinSet::new();
        let mut served = 0_u64;
        loop {
            while conversations.try_join_next().is_some() {}
            tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.accept() => match accepted {
                    Ok((stream, permit)) => {
                        served += 1;
                        let inner = Arc::clone(&self.inner);
                        conversations.spawn(async move {
                            inner.converse(stream).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "the broker could not accept a caller");
                        // Out of descriptors, usually: somebody must finish first.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        info!(served, "broker stopped");
        conversations.shutdown().await;
    }

    async fn accept(&self) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
        let callers = Arc::clone(&self.inner.callers);
        let permit = callers.acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.inner.listener.accept().await?;
        Ok((stream, permit))
    }

    /// Lets the pod in that network namespace listen on these addresses, and takes them at once; they replace
    /// what it had published before.
    ///
    /// # Errors
    /// Names the first address that cannot be had; then nothing has changed.
    pub fn publish(
        &self,
        network_namespace: u64,
        addresses: &[SocketAddr],
        claim: Claim,
    ) -> Result<(), PublishError> {
        let mut published = self.inner.published.lock();
        published.publish(network_namespace, addresses, claim)
    }

    /// Tells which pod the network namespace is, so that its sidecar can be introduced to others.
    pub fn settle(&self, network_namespace: u64, resident: Resident) {
        let mut introductions = self.inner.introductions.lock();
        introductions.settle(network_namespace, resident);
    }

    /// Gives back what a pod had published, where no other pod publishes it too, and introduces nobody to it.
    pub fn withdraw(&self, network_namespace: u64) {
        self.inner.published.lock().withdraw(network_namespace);
        self.inner.introductions.lock().leave(network_namespace);
    }

    /// Lets sidecars dial one address that the policy refuses otherwise.
    pub fn allow(&self, address: SocketAddr) {
        self.inner.dial.lock().allow(address);
    }
}

impl Inner {
    async fn converse(&self, mut stream: UnixStream) {
        let caller = match self.attest(&stream) {
            Ok(caller) => caller,
            Err(error) => {
                warn!(%error, "a caller of the broker was turned away");
                let refusal = refused(libc_eacces(), &error.to_string());
                let _ = handoff::send(&mut stream, &refusal, None).await;
                return;
            }
        };
        loop {
            let request = match handoff::receive::<BrokerRequest>(&mut stream).await {
                Ok((request, _)) => request,
                Err(error) => {
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        debug!(%error, "a caller of the broker spoke no sense");
                    }
                    return;
                }
            };
            if let BrokerRequest::Receive { certificates } = request {
                return self.pass_channels(caller, &mut stream, certificates).await;
            }
            let (reply, socket) = self.answer(caller, request).await;
            let sent = handoff::send(&mut stream, &reply, socket.as_ref().map(AsFd::as_fd)).await;
            if sent.is_err() {
                return;
            }
        }
    }

    /// A conversation in which the broker speaks: each channel for the caller, until the caller closes it.
    async fn pass_channels(
        &self,
        caller: Caller,
        stream: &mut UnixStream,
        certificates: Certificates,
    ) {
        let namespace = caller.network_namespace;
        let receiving = self.introductions.lock().receive(namespace, certificates);
        let (number, mut arriving) = receiving;
        loop {
            tokio::select! {
                arrival = arriving.recv() => {
                    let Some(arrival) = arrival else { break };
                    if pass(stream, arrival).await.is_err() {
                        break;
                    }
                }
                spoken_to = handoff::until_spoken_to(stream) => {
                    let Some(certificates) = renewed(stream, spoken_to).await else { break };
                    self.introductions.lock().renew(namespace, number, certificates);
                }
            }
        }
        self.introductions.lock().stop_receiving(namespace, number);
    }

    fn attest(&self, stream: &UnixStream) -> Result<Caller, AttestError> {
        let credentials = stream.peer_cred().map_err(AttestError::Credentials)?;
        self.attestor.attest(credentials.pid().unwrap_or(0))
    }

    async fn answer(
        &self,
        caller: Caller,
        request: BrokerRequest,
    ) -> (BrokerReply, Option<OwnedFd>) {
        let socket = match request {
            BrokerRequest::Listen { address } => self
                .published
                .lock()
                .socket(caller.network_namespace, address)
                .map_err(|error| (error.errno(), error.to_string())),
            BrokerRequest::Dial {
                address,
                timeout_millis,
            } => {
                let policy = self.dial.lock().clone();
                dial::dial(&policy, address, timeout_millis)
                    .await
                    .map_err(|error| (error.errno(), error.to_string()))
            }
            BrokerRequest::Resolve { name } => return (self.names.resolve(&name).await, None),
            BrokerRequest::Introduce {
                destination,
                protocol,
                server_name,
                certificates,
            } => {
                let wish = Wish {
                    destination,
                    protocol,
                    server_name,
                    certificates,
                };
                let introductions = self.introductions.lock();
                match introductions.introduce(caller.network_namespace, wish) {
                    Ok((introduction, socket)) => {
                        return (BrokerReply::Introduced(introduction), Some(socket));
                    }
                    Err(error) => Err((error.errno(), error.to_string())),
                }
            }
            // It has a conversation of its own.
            BrokerRequest::Receive { .. } => Err((0, "already receiving".to_owned())),
        };
        match socket {
            Ok(socket) => (BrokerReply::Socket, Some(socket)),
            Err((errno, reason)) => {
                debug!(?caller, errno, reason, "the broker said no");
                (refused(errno, &reason), None)
            }
        }
    }
}

/// How long a sidecar may take to read what it is sent, and to finish what it has begun to say.
const CONVERSATION_LIMIT: Duration = Duration::from_secs(5);

async fn pass(stream: &mut UnixStream, (introduction, socket): Arrival) -> io::Result<()> {
    let reply = BrokerReply::Introduced(introduction);
    let sent = handoff::send(stream, &reply, Some(socket.as_fd()));
    tokio::time::timeout(CONVERSATION_LIMIT, sent).await?
}

/// What a receiver says next: its new certificates, or nothing more.
async fn renewed(stream: &mut UnixStream, spoken_to: io::Result<()>) -> Option<Certificates> {
    spoken_to.ok()?;
    let received = handoff::receive::<BrokerRequest>(stream);
    match tokio::time::timeout(CONVERSATION_LIMIT, received).await {
        Ok(Ok((BrokerRequest::Receive { certificates }, _))) => Some(certificates),
        _ => None,
    }
}

fn refused(errno: i32, reason: &str) -> BrokerReply {
    BrokerReply::Failed {
        errno,
        reason: reason.to_owned(),
    }
}

fn libc_eacces() -> i32 {
    rustix::io::Errno::ACCESS.raw_os_error()
}

/// Anyone may connect, for sidecars have users of their own; who calls is found out afterwards.
fn open_socket(path: &PathBuf) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
