//! The bytes of a downstream connection, beginning with those already read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::tls::io::MaybeTls;
use crate::wire::{Bare, Wire};

/// Bytes already read, then the rest.
#[derive(Debug)]
pub(super) struct Prefixed<IO> {
    pub(super) prefix: Bytes,
    pub(super) io: IO,
}

/// A connection from a client; its TLS, if any, is ended here.
pub(super) type DownstreamIo = MaybeTls<Prefixed<Wire>, Prefixed<TlsStream<TcpStream>>>;

impl DownstreamIo {
    /// In the clear.
    pub(super) fn plain(prefix: Bytes, io: TcpStream) -> Self {
        MaybeTls::Plain(Prefixed {
            prefix,
            io: Wire::Tcp(io),
        })
    }

    /// Over a local channel.
    pub(super) fn local(io: UnixStream) -> Self {
        MaybeTls::Plain(Prefixed {
            prefix: Bytes::new(),
            io: Wire::Local(io),
        })
    }

    /// In TLS.
    pub(super) fn tls(io: TlsStream<TcpStream>) -> Self {
        MaybeTls::Tls(Box::new(Prefixed {
            prefix: Bytes::new(),
            io,
        }))
    }

    /// Puts back what has been read.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        match self {
            MaybeTls::Plain(io) => io.prefix = bytes,
            MaybeTls::Tls(io) => io.prefix = bytes,
        }
    }
}

impl Bare for DownstreamIo {
    fn bare(&mut self) -> Option<(Bytes, &Wire)> {
        match self {
            MaybeTls::Plain(Prefixed { prefix, io }) => Some((std::mem::take(prefix), io)),
            MaybeTls::Tls(_) => None,
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let length = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
        // What is read to its end is given back: a connection lives on for long.
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
