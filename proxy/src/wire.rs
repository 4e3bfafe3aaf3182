//! What carries the bytes of a connection: TCP, or a local channel to another sidecar of this machine.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket.
#[derive(Debug)]
pub enum Wire {
    /// Through a network.
    Tcp(TcpStream),
    /// One end of a socket pair.
    Local(UnixStream),
}

/// The same call, whatever the wire is.
macro_rules! either {
    ($wire:expr, $stream:ident => $call:expr) => {
        match $wire {
            Wire::Tcp($stream) => $call,
            Wire::Local($stream) => $call,
        }
    };
}

/// A connection that may be a socket and nothing more.
pub trait Bare {
    /// The socket, and what has been read from it already, which is given away; `None` where its bytes are not those
    /// of the connection, as in TLS.
    fn bare(&mut self) -> Option<(Bytes, &Wire)>;
}

impl Wire {
    /// Our own end of it; none of a local channel.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Wire::Tcp(stream) => stream.local_addr().ok(),
            Wire::Local(_) => None,
        }
    }

    /// Ready once there is something to read, or it has ended.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read_ready(context))
    }

    /// Does something with the socket that may say that it would block, which is remembered.
    pub fn try_with<T>(
        &self,
        interest: Interest,
        mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        either!(self, stream => stream.try_io(interest, || act(stream.as_fd())))
    }

    /// Ready once a write will not block, or has something to say.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_write_ready(context))
    }

    /// Reads what is there, for one of several that hold the wire; one of them alone may wait to read.
    ///
    /// What is read less than there was room for was all: the next read waits for more without asking the kernel.
    pub fn poll_read_shared(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => loop {
            ready!(stream.poll_read_ready(context))?;
            let room = buffer.remaining();
            let mut count = 0;
            // The runtime forgets that the socket is readable when it hears that a read would block. It does not
            // where something has come since it was asked: so the read has to be within the question.
            let read = stream.try_io(Interest::READABLE, || {
                count = stream.try_read_buf(buffer)?;
                if count > 0 && count < room {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && count == 0 => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                _ => return Poll::Ready(Ok(())),
            }
        })
    }

    /// Writes what there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(bytes))
    }

    /// Writes what there is room for. One slice is sent as such: that is the cheaper call.
    pub fn try_write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => self.try_write(one),
            several => either!(self, stream => stream.try_write_vectored(several)),
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }
}

/// For one of several that hold the wire; one of them alone may wait to read, and one to write.
impl AsyncRead for &Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_shared(context, buffer)
    }
}

impl AsyncWrite for &Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(context))?;
            match self.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(*self).shutdown(std::net::Shutdown::Write))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [one] => self.poll_write(context, one),
            several => either!(
                self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, several)
            ),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn next(wire: &Wire, room: usize) -> Vec<u8> {
        let mut bytes = vec![0; room];
        let mut buffer = ReadBuf::new(&mut bytes);
        poll_fn(|context| wire.poll_read_shared(context, &mut buffer))
            .await
            .expect("read");
        buffer.filled().to_vec()
    }

    #[tokio::test]
    async fn what_comes_after_a_short_read_is_read_too() {
        let (mut peer, socket) = UnixStream::pair().expect("a pair");
        let wire = Wire::Local(socket);

        for round in 0..100_u8 {
            peer.write_all(&[round, 1]).await.expect("write");
            assert_eq!(next(&wire, 64).await, [round, 1]);
        }
    }

    #[tokio::test]
    async fn what_there_was_no_room_for_is_read_next() {
        let (mut peer, socket) = UnixStream::pair().expect("a pair");
        let wire = Wire::Local(socket);
        peer.write_all(b"abcde").await.expect("write");

        assert_eq!(next(&wire, 3).await, b"abc");
        assert_eq!(next(&wire, 3).await, b"de");
    }

    #[tokio::test]
    async fn the_end_is_read_after_what_came_before_it() {
        let (mut peer, socket) = UnixStream::pair().expect("a pair");
        let wire = Wire::Local(socket);
        peer.write_all(b"last").await.expect("write");
        drop(peer);

        assert_eq!(next(&wire, 64).await, b"last");
        assert_eq!(next(&wire, 64).await, b"");
    }
}
