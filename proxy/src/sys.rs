//! System calls that no library has, and what the runtime is told of sockets: the only unsafe code of the proxy.

#![allow(unsafe_code, reason = "no library has these system calls")]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime watch a listening socket. Its own listener would also take on each connection, which is another
/// thread's to serve.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn watch_listener(listener: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // SAFETY: the listener owns its descriptor, which is the same and open until the listener is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    Ok(watched?)
}

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
