//! The conversation between the server and a shim, over a unix socket: one JSON value per line.
//!
//! A client is told the status at once and after each change; requests go the other way. When the
//! container has ended for good the shim closes.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

const SOCKET: &str = "shim.sock";

/// What a shim is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Ask the first process to end, wait, kill; no restart follows.
    Stop { signal: i32, grace_millis: u64 },
    /// Send a signal to the first process.
    Signal { signal: i32 },
    /// The size of the terminal.
    Resize { rows: u16, columns: u16 },
    /// Run this program beside the one that runs, which it is to relieve.
    Replace { program: PathBuf },
}

/// The socket in a container's runtime directory, by a name short enough for sockaddr_un (108 bytes).
pub(crate) struct SocketPath {
    path: PathBuf,
    /// What the name refers to.
    _directory: std::os::fd::OwnedFd,
}

impl SocketPath {
    pub(crate) fn in_directory(directory: &Path) -> io::Result<SocketPath> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(SocketPath {
            path: PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())),
            _directory: directory,
        })
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.path
    }
}
