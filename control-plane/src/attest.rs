//! Who is calling: the kernel's word, never the caller's.
//!
//! The kernel knows which process connected to a unix socket; the network namespace of that process is the
//! sandbox it lives in; and the launcher has written the inode of that namespace on the pod. What the caller says
//! of itself (node ids, names in certificate requests) plays no part.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::server::Connected;
use weft_proto::spiffe::SpiffeId;

use crate::mesh::pods::NETWORK_NAMESPACE;
use crate::mesh::{Mesh, ObjectName};
use crate::translate::Snapshot;

/// How long a caller is waited for whose pod is not known yet: its annotation is written a moment before it starts.
const PATIENCE: Duration = Duration::from_secs(2);

/// A caller that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The pod it runs in.
    pub pod: ObjectName,
    /// Who it is.
    pub identity: SpiffeId,
}

/// Why a caller was not recognised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unattested {
    /// It did not come by a unix socket.
    #[error("callers are attested by the unix socket only; this call came by {0}")]
    NotLocal(String),
    /// The kernel does not say who it is, or it has gone since.
    #[error("process {pid} cannot be examined: {reason}")]
    Process {
        /// Its id, as this process sees it; 0 where it is not even visible.
        pid: i32,
        /// What went wrong.
        reason: String,
    },
    /// It is in no sandbox of the mesh.
    #[error(
        "process {pid} is in network namespace {namespace}, and no pod carries {NETWORK_NAMESPACE}={namespace}"
    )]
    NoPod {
        /// Its id.
        pid: i32,
        /// The inode of its network namespace.
        namespace: u64,
    },
    /// Two pods claim its sandbox.
    #[error("process {pid} is in network namespace {namespace}, which several pods claim: {pods}")]
    Ambiguous {
        /// Its id.
        pid: i32,
        /// The inode of its network namespace.
        namespace: u64,
        /// The pods' names.
        pods: String,
    },
    /// Its pod has a name that no identity can have.
    #[error("pod {pod} has no identity: {reason}")]
    NoIdentity {
        /// The pod.
        pod: ObjectName,
        /// What is wrong with its names.
        reason: String,
    },
}

impl From<Unattested> for Status {
    fn from(unattested: Unattested) -> Self {
        Status::permission_denied(unattested.to_string())
    }
}

/// What is known of the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process on this machine.
    Process {
        /// Its id.
        pid: i32,
        /// The inode of its network namespace, or why it is not known.
        namespace: Result<u64, Unattested>,
    },
    /// Somebody who came by TCP.
    Remote(std::net::SocketAddr),
}

impl Caller {
    /// Who connected to a unix socket. Asked once, when the connection is accepted: later the process may have
    /// ended and another one may have its id.
    pub fn of(stream: &UnixStream) -> Self {
        let pid = match stream.peer_cred().map(|credentials| credentials.pid()) {
            Ok(Some(pid)) => pid,
            Ok(None) => 0,
            Err(error) => {
                return Self::Process {
                    pid: 0,
                    namespace: Err(unknown_process(0, &error)),
                };
            }
        };
        Self::Process {
            pid,
            namespace: network_namespace(stream.as_fd(), pid),
        }
    }
}

/// Recognises callers.
pub trait Attest: Send + Sync + 'static {
    /// Who the caller is, as far as is known now.
    ///
    /// # Errors
    /// When it is nobody of the mesh; the message tells an operator why.
    fn attest(&self, mesh: &Mesh, caller: &Caller) -> Result<Workload, Unattested>;
}

/// Recognises callers by the network namespace they are in.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByNetworkNamespace;

impl Attest for ByNetworkNamespace {
    fn attest(&self, mesh: &Mesh, caller: &Caller) -> Result<Workload, Unattested> {
        let (pid, namespace) = match caller {
            Caller::Process { pid, namespace } => (*pid, namespace.clone()?),
            Caller::Remote(address) => {
                return Err(Unattested::NotLocal(format!("TCP from {address}")));
            }
        };
        let mut alive = mesh
            .pods_in_network_namespace(namespace)
            .filter(|pod| !pod.is_finished);
        let pod = alive.next().ok_or(Unattested::NoPod { pid, namespace })?;
        let others: Vec<_> = alive.map(|other| other.name.to_string()).collect();
        if !others.is_empty() {
            return Err(Unattested::Ambiguous {
                pid,
                namespace,
                pods: format!("{}, {}", pod.name, others.join(", ")),
            });
        }
        let identity = pod
            .identity(&mesh.settings.trust_domain)
            .map_err(|invalid| Unattested::NoIdentity {
                pod: pod.name.clone(),
                reason: invalid.to_string(),
            })?;
        Ok(Workload {
            pod: pod.name.clone(),
            identity,
        })
    }
}

/// Attests against the newest snapshot, and against newer ones for a moment where the pod is not known yet.
///
/// # Errors
/// The last answer, once patience is over.
pub async fn attest_patiently(
    attest: &dyn Attest,
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    caller: &Caller,
) -> Result<Workload, Unattested> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mesh = Arc::clone(&snapshots.borrow_and_update().mesh);
        let refused = match attest.attest(&mesh, caller) {
            Err(refused @ Unattested::NoPod { .. }) => refused,
            answer => return answer,
        };
        match tokio::time::timeout_at(deadline, snapshots.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(refused),
        }
    }
}

/// The inode of the network namespace of the process that connected. The descriptor of the process (Linux 6.5)
/// proves that it was that process, and not a later one with its id, whose namespace was read; older kernels
/// compare the time at which it started before and after.
fn network_namespace(stream: BorrowedFd<'_>, pid: i32) -> Result<u64, Unattested> {
    if pid <= 0 {
        return Err(unknown_process(
            pid,
            &io::Error::other("it is not visible from here"),
        ));
    }
    let proof = Proof::of(stream, pid).map_err(|error| unknown_process(pid, &error))?;
    let inode = std::fs::metadata(format!("/proc/{pid}/ns/net"))
        .map_err(|error| unknown_process(pid, &error))?
        .ino();
    match proof.still_holds(pid) {
        true => Ok(inode),
        false => Err(unknown_process(pid, &io::Error::other("it has ended"))),
    }
}

fn unknown_process(pid: i32, error: &io::Error) -> Unattested {
    Unattested::Process {
        pid,
        reason: error.to_string(),
    }
}

/// That a process id still means the process it meant.
enum Proof {
    Descriptor(OwnedFd),
    StartTime(u64),
}

impl Proof {
    fn of(stream: BorrowedFd<'_>, pid: i32) -> io::Result<Self> {
        match getsockopt(&stream, sockopt::PeerPidfd) {
            Ok(descriptor) => Ok(Self::Descriptor(descriptor)),
            Err(Errno::ENOPROTOOPT | Errno::EINVAL) => start_time(pid).map(Self::StartTime),
            Err(errno) => Err(errno.into()),
        }
    }

    fn still_holds(&self, pid: i32) -> bool {
        match self {
            // Readable means ended (pidfd_open(2)).
            Self::Descriptor(descriptor) => {
                let mut asked = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
                matches!(nix::poll::poll(&mut asked, PollTimeout::ZERO), Ok(0))
            }
            Self::StartTime(before) => start_time(pid).is_ok_and(|now| now == *before),
        }
    }
}

/// Field 22 of proc_pid_stat(5), in clock ticks since boot.
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain anything; fields are counted behind it, from the third on.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its start time cannot be read"))
}

/// A unix connection that knows who is at its other end.
#[derive(Debug)]
pub struct KnownStream {
    stream: UnixStream,
    caller: Caller,
}

impl KnownStream {
    /// Asks the kernel who connected.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            caller: Caller::of(&stream),
            stream,
        }
    }
}

impl Connected for KnownStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for KnownStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for KnownStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::mesh::Settings;
    use crate::mesh::source::Objects;

    use super::*;

    fn pod(name: &str, namespace: u64, phase: &str) -> serde_json::Value {
        json!({
            "metadata": {"namespace": "default", "name": name,
                         "annotations": {NETWORK_NAMESPACE: namespace.to_string()}},
            "spec": {"containers": [], "serviceAccountName": "reviews"},
            "status": {"phase": phase},
        })
    }

    fn mesh(pods: &[serde_json::Value]) -> Mesh {
        let pods = pods
            .iter()
            .cloned()
            .map(|pod| serde_json::from_value(pod).unwrap());
        let objects = Objects {
            pods: pods.collect(),
            ..Objects::default()
        };
        Mesh::build(&objects, Settings::default())
    }

    async fn caller_of_this_process() -> (Caller, u64) {
        let (_here, there) = UnixStream::pair().unwrap();
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        (Caller::of(&there), own)
    }

    #[tokio::test]
    async fn a_caller_is_the_pod_whose_network_namespace_it_is_in() {
        let (caller, own) = caller_of_this_process().await;
        let mesh = mesh(&[
            pod("reviews-v1-abcde", own, "Running"),
            pod("other", own + 1, "Running"),
        ]);

        let workload = ByNetworkNamespace.attest(&mesh, &caller).unwrap();

        assert_eq!(workload.pod, ObjectName::new("default", "reviews-v1-abcde"));
        assert_eq!(
            workload.identity.to_string(),
            "spiffe://cluster.local/ns/default/sa/reviews"
        );
    }

    #[tokio::test]
    async fn a_process_outside_of_every_sandbox_is_refused_with_the_reason() {
        let (caller, own) = caller_of_this_process().await;

        let refused = ByNetworkNamespace.attest(&mesh(&[]), &caller).unwrap_err();

        let message = refused.to_string();
        assert!(
            message.contains(&format!("network namespace {own}")),
            "{message}"
        );
        assert_eq!(Status::from(refused).code(), tonic::Code::PermissionDenied);
    }

    #[tokio::test]
    async fn a_pod_that_has_ended_does_not_stand_in_the_way_of_its_successor() {
        let (caller, own) = caller_of_this_process().await;
        let mesh = mesh(&[pod("old", own, "Failed"), pod("new", own, "Running")]);

        assert_eq!(
            ByNetworkNamespace.attest(&mesh, &caller).unwrap().pod.name,
            "new"
        );
    }

    #[tokio::test]
    async fn two_living_pods_that_claim_one_namespace_are_both_refused() {
        let (caller, own) = caller_of_this_process().await;
        let mesh = mesh(&[pod("a", own, "Running"), pod("b", own, "Running")]);

        let refused = ByNetworkNamespace.attest(&mesh, &caller).unwrap_err();

        assert!(matches!(refused, Unattested::Ambiguous { .. }), "{refused}");
    }

    #[test]
    fn a_remote_caller_is_nobody() {
        let caller = Caller::Remote("127.0.0.1:1".parse().unwrap());

        assert!(ByNetworkNamespace.attest(&mesh(&[]), &caller).is_err());
    }

    #[tokio::test]
    async fn a_process_that_has_ended_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        // Opens a connection, and ends at once.
        let program = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
        let mut child = tokio::process::Command::new("python3")
            .arg("-c")
            .arg(program)
            .arg(&path)
            .spawn()
            .unwrap();
        child.wait().await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();

        let Caller::Process { namespace, .. } = Caller::of(&stream) else {
            panic!("a process");
        };

        assert!(
            matches!(namespace, Err(Unattested::Process { .. })),
            "{namespace:?}"
        );
    }

    #[test]
    fn the_start_time_of_a_process_is_read_behind_its_name() {
        let pid = i32::try_from(std::process::id()).unwrap();

        assert!(start_time(pid).unwrap() > 0);
        assert!(Proof::StartTime(start_time(pid).unwrap()).still_holds(pid));
        assert!(!Proof::StartTime(0).still_holds(pid));
    }
}
