//! System calls that no library has: the only unsafe code of the proxy.

#![allow(unsafe_code, reason = "no library has these system calls")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an option of a socket by numbers that are known only from the configuration (setsockopt(2)).
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn set_option(
    socket: &impl AsFd,
    level: i32,
    name: i32,
    value: &[u8],
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads `length` bytes of
    // `value` and keeps nothing of it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many bytes the peer of a TCP connection has not acknowledged (`SIOCOUTQ` of tcp(7)); a connection that was reset
/// still tells.
///
/// # Errors
///
/// What the kernel says, such as of a socket that is none of TCP.
pub(crate) fn unacknowledged(socket: &impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel writes one integer to where
    // one is.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    match result {
        0 => u64::try_from(bytes).map_err(io::Error::other),
        _ => Err(io::Error::last_os_error()),
    }
}
