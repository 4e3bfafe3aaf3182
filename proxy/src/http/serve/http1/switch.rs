//! What becomes of a connection whose client asks for another protocol: whoever has taken the request gets it, once the
//! response has been written that agrees.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Client;
use super::line::SharedLine;

/// The bytes of another protocol with a client.
pub(in crate::http) type ClientIo = Box<dyn Duplex>;

/// A connection of any kind.
pub(in crate::http) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin> Duplex for IO {}

/// Among the extensions of a request that asks for another protocol.
#[derive(Clone)]
pub(in crate::http) struct Switch(Arc<dyn Switching>);

trait Switching: Send + Sync {
    fn poll_switched(&self, context: &mut Context<'_>) -> Poll<io::Result<ClientIo>>;
}

impl Switch {
    pub(super) fn of<IO: Client>(line: SharedLine<IO>) -> Self {
        Switch(line)
    }

    /// The connection, as soon as it is that of the other protocol.
    pub(in crate::http) async fn switched(self) -> io::Result<ClientIo> {
        std::future::poll_fn(|context| self.0.poll_switched(context)).await
    }
}

impl<IO: Client> Switching for parking_lot::Mutex<super::line::Line<IO>> {
    fn poll_switched(&self, context: &mut Context<'_>) -> Poll<io::Result<ClientIo>> {
        let (io, unread) = ready!(self.lock().poll_switched(context))?;
        Poll::Ready(Ok(match unread.is_empty() {
            true => Box::new(io),
            false => Box::new(Preceded { unread, io }),
        }))
    }
}

/// What has been read already, then the rest.
struct Preceded<IO> {
    unread: Bytes,
    io: IO,
}

impl<IO: Client> AsyncRead for Preceded<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        if self.unread.is_empty() {
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: Client> AsyncWrite for Preceded<IO> {
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
