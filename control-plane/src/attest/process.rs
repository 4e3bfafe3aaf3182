//! What the kernel tells of the process at the other end of a socket, and that it is still that process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{getsockopt, sockopt};

use super::Unattested;

/// The inode of the network namespace of the process that connected. The descriptor of the process (Linux 6.5)
/// proves that it was that process, and not a later one with its id, whose namespace was read; older kernels
/// compare the time at which it started before and after.
pub(super) fn network_namespace(stream: BorrowedFd<'_>, pid: i32) -> Result<u64, Unattested> {
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

pub(super) fn unknown_process(pid: i32, error: &io::Error) -> Unattested {
    Unattested::Process {
        pid,
        reason: error.to_string(),
    }
}

/// That a process id still means the process it meant.
pub(super) enum Proof {
    Descriptor(OwnedFd),
    StartTime(u64),
}

impl Proof {
    pub(super) fn of(stream: BorrowedFd<'_>, pid: i32) -> io::Result<Self> {
        match getsockopt(&stream, sockopt::PeerPidfd) {
            Ok(descriptor) => Ok(Self::Descriptor(descriptor)),
            Err(Errno::ENOPROTOOPT | Errno::EINVAL) => start_time(pid).map(Self::StartTime),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn still_holds(&self, pid: i32) -> bool {
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
pub(super) fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain anything; fields are counted behind it, from the third on.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its start time cannot be read"))
}
