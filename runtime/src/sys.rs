//! System calls that no safe wrapper exists for. One function per call, nothing else.

#![allow(
    unsafe_code,
    reason = "the system calls of the runtime that only unsafe code can make"
)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::{ForkResult, Pid};

use crate::program_pages::CleanMapping;

/// Copies the process. The caller has one thread only, so the child may do whatever the parent may.
pub(crate) fn fork() -> io::Result<ForkResult> {
    ensure_single_thread()?;
    // SAFETY: there is no other thread that could hold a lock which the child would then wait for.
    unsafe { nix::unistd::fork() }.map_err(io::Error::from)
}

/// Copies the process; the copy is a child of *our* parent, and the first process of a new pid namespace.
pub(crate) fn fork_sibling_into_pid_namespace() -> io::Result<ForkResult> {
    ensure_single_thread()?;
    let flags = libc::CLONE_PARENT | libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is fork(2): the child has its own copy of the memory
    // and goes on here. There is no other thread that could hold a lock.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match c_int::try_from(pid) {
        Ok(0) => Ok(ForkResult::Child),
        Ok(pid) if pid > 0 => Ok(ForkResult::Parent {
            child: Pid::from_raw(pid),
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Adds attributes (`MOUNT_ATTR_…`) to the mounts that a descriptor of open_tree(2) or fsmount(2) holds.
pub(crate) fn add_mount_attributes(mount: impl AsFd, attributes: u64) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: path is a valid empty string, `change` lives through the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has every descriptor from `first` on closed by the next execve(2).
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: only sets a flag on descriptors; none is closed while this program runs.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets SIGPIPE end a process again, as every program but ours expects.
pub(crate) fn restore_broken_pipe_signal() -> io::Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}

/// Gives memory that was freed back to the system; the C library's allocator keeps most of it else. Only the
/// GNU one does so; musl's keeps little.
pub fn release_free_memory() {
    // SAFETY: malloc_trim(3) takes the allocator's own locks, and touches nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes the pages of a mapping out of the process.
pub(crate) fn give_up_pages(mapping: &CleanMapping) -> io::Result<()> {
    let start = std::ptr::without_provenance_mut(mapping.start());
    // SAFETY: the pages are those of a file that is mapped for as long as the process lives, and none was changed: whatever
    // reads them next, in this thread or another, finds them mapped again with the same contents.
    match unsafe { libc::madvise(start, mapping.length(), libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// unshare(2) refuses this flag to a process with several threads, and does nothing otherwise. It works where
/// /proc is another pid namespace's.
fn ensure_single_thread() -> io::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_VM)
        .map_err(|_| io::Error::other("a process with several threads may not be copied"))
}
