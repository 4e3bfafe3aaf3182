//! A mesh whose holder and server were both killed still lives in its shims: a new holder joins them.

use std::fs;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Boot, NodeError};
use crate::bootstrap::NodeOptions;
use crate::container::Place;
use crate::container::status::Status;
use crate::files;
use crate::procfs;

/// What is left of a mesh.
pub(super) struct Orphans {
    /// A shim, which keeps the namespaces open.
    shim: i32,
    pub(super) boot: Boot,
}

/// Looks for shims that run without a holder. Whoever asks holds the lock.
pub(super) fn find(options: &NodeOptions) -> Option<Orphans> {
    let boot = files::read_json::<Boot>(&options.runtime_dir.join(Boot::FILE));
    let boot = boot.ok().flatten()?;
    let containers = fs::read_dir(options.runtime_dir.join("containers")).ok()?;
    let shim = containers.flatten().find_map(|entry| {
        let id = entry.file_name().to_string_lossy().into_owned();
        let place = Place::new(&options.state_dir, &options.runtime_dir, &id);
        let status = Status::read(&place.status()).ok().flatten()?;
        is_shim_of(status.shim_pid, &place.state).then_some(status.shim_pid)
    })?;
    Some(Orphans { shim, boot })
}

impl Orphans {
    /// Takes this process into the mesh's namespaces; it is not their root yet.
    pub(super) fn join(&self) -> Result<(), NodeError> {
        let join = || -> io::Result<()> {
            let pid = Pid::from_raw(self.shim).ok_or(io::ErrorKind::NotFound)?;
            let shim = pidfd_open(pid, PidfdFlags::empty())?;
            let flags = CloneFlags::CLONE_NEWUSER
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS;
            Ok(setns(shim, flags)?)
        };
        join().map_err(NodeError::io("joining what is left of the mesh"))
    }
}

/// Pids are given again: this one must still be the shim of that container.
fn is_shim_of(pid: i32, state: &Path) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0).skip(1);
    let is_shim = words.next() == Some(b"shim".as_slice())
        && words.next() == Some(state.as_os_str().as_encoded_bytes());
    pid > 0 && is_shim && procfs::is_alive(pid)
}
