//! Who is calling: the kernel's word, never the caller's.
//!
//! The kernel knows which process connected to a unix socket; the network namespace of that process is the
//! sandbox it lives in; and the launcher has written the inode of that namespace on the pod. What the caller says
//! of itself (node ids, names in certificate requests) plays no part.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::Status;
use weft_proto::spiffe::SpiffeId;

use crate::mesh::pods::NETWORK_NAMESPACE;
use crate::mesh::{Mesh, ObjectName};
use crate::translate::Snapshot;

pub mod connection;
mod process;

use process::{network_namespace, unknown_process};

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

#[cfg(test)]
mod tests;
