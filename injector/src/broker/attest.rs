//! Who is calling the broker: the kernel's word, not the caller's.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// A caller that belongs to the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The inode of its network namespace: which sandbox it is in.
    pub network_namespace: u64,
}

/// Why a caller is turned away.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The kernel does not say who it is.
    #[error("the peer credentials cannot be read")]
    Credentials(#[source] io::Error),
    /// It is outside of what this process can see, or gone.
    #[error("process {pid} cannot be looked at: {source}")]
    Unseen {
        /// Which one.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
    /// It is some other process of this machine.
    #[error("process {pid} is not part of the mesh")]
    Stranger {
        /// Which one.
        pid: i32,
    },
}

/// Tells who a process is.
pub trait Attest: Send + Sync {
    /// The caller behind a process id, as this process sees it.
    ///
    /// # Errors
    /// Where it is no part of the mesh.
    fn attest(&self, pid: i32) -> Result<Caller, AttestError>;
}

/// Takes the processes of one user namespace for the mesh: that of the node and its sandboxes.
#[derive(Debug, Clone, Copy)]
pub struct SameUserNamespace {
    inode: u64,
}

impl SameUserNamespace {
    /// The mesh that a process (the node's) is part of.
    ///
    /// # Errors
    /// Where that process does not exist or belongs to somebody else.
    pub fn as_process(pid: i32) -> Result<Self, AttestError> {
        Ok(Self {
            inode: namespace(pid, "user")?,
        })
    }
}

impl Attest for SameUserNamespace {
    fn attest(&self, pid: i32) -> Result<Caller, AttestError> {
        let network_namespace = namespace(pid, "net")?;
        if namespace(pid, "user")? != self.inode {
            return Err(AttestError::Stranger { pid });
        }
        Ok(Caller { network_namespace })
    }
}

fn namespace(pid: i32, kind: &str) -> Result<u64, AttestError> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}"))
        .map(|metadata| metadata.ino())
        .map_err(|source| AttestError::Unseen { pid, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_pid() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn a_process_of_the_same_namespace_belongs_to_the_mesh() {
        let attestor = SameUserNamespace::as_process(own_pid()).unwrap();

        let caller = attestor.attest(own_pid()).unwrap();

        let inode = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(caller.network_namespace, inode);
    }

    #[test]
    fn a_process_of_another_namespace_does_not() {
        let attestor = SameUserNamespace { inode: 1 };

        let error = attestor.attest(own_pid()).unwrap_err();

        assert!(matches!(error, AttestError::Stranger { .. }));
    }

    #[test]
    fn a_process_that_cannot_be_seen_does_not_either() {
        let attestor = SameUserNamespace { inode: 1 };

        assert!(matches!(
            attestor.attest(0),
            Err(AttestError::Unseen { .. })
        ));
    }
}
