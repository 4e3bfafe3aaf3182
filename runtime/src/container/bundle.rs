//! Everything that a container's first process needs to know, complete and resolved: it looks nothing up.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::restart::RestartPolicy;
use crate::cgroup::Group;

/// A container, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) id: String,
    pub(crate) hostname: String,
    pub(crate) root: Root,
    /// Where the root filesystem is mounted: an empty directory.
    pub(crate) root_directory: PathBuf,
    pub(crate) read_only_root: bool,
    pub(crate) network: Network,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) process: Process,
    pub(crate) group: Group,
    pub(crate) restart: RestartPolicy,
    /// The signal that asks it to end.
    pub(crate) stop_signal: i32,
    /// Ends before others do when the machine has no memory left; 0 is as likely as any.
    pub(crate) oom_score_adjust: i32,
}

/// What the root filesystem consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Root {
    /// An image's layers, lowest first, under a writable one.
    Overlay {
        layers: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
    },
    /// The host's programs, read-only, and weft itself at `/weft`.
    HostPrograms { program: PathBuf },
}

/// Which network namespace it lives in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Network {
    /// That of its sandbox.
    Sandbox(PathBuf),
    /// One of its own, with a loopback interface and no way out.
    Isolated,
}

/// Something mounted over the root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) target: PathBuf,
    pub(crate) source: Source,
    pub(crate) read_only: bool,
}

/// Where its content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// A file or directory of the node's mount namespace.
    Bind(PathBuf),
    /// A named volume: like a bind, but an empty one first gets what the image has at the target.
    Volume(PathBuf),
    Tmpfs {
        bytes: u64,
        mode: u32,
        uid: u32,
    },
}

/// What runs, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) command: Vec<String>,
    /// NAME=value; later ones win.
    pub(crate) environment: Vec<String>,
    pub(crate) working_directory: String,
    /// `uid[:gid]` or names of the container's own /etc/passwd and /etc/group.
    pub(crate) user: String,
    /// Without `CAP_`, upper case.
    pub(crate) capabilities: Vec<String>,
    pub(crate) terminal: bool,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sidecar's, of this id.
    pub(crate) fn bundle(id: &str) -> Bundle {
        Bundle {
            id: id.to_owned(),
            hostname: "pod".to_owned(),
            root: Root::HostPrograms {
                program: "/weft".into(),
            },
            root_directory: "/root".into(),
            read_only_root: true,
            network: Network::Isolated,
            mounts: vec![],
            process: Process::default(),
            group: Group::default(),
            restart: RestartPolicy::Always,
            stop_signal: libc::SIGTERM,
            oom_score_adjust: 0,
        }
    }
}
