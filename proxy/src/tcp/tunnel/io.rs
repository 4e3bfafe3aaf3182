//! The bytes of a tunnel: of a connection or stream that CONNECT has made one, or of two bodies.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::upstream::body::meter::Copied;
use crate::upstream::response::UpstreamBody;
use crate::upstream::shared::SharedStream;
use crate::upstream::upgraded::UpgradedIo;

/// The upstream's end of a tunnel.
#[derive(Debug)]
pub enum TunnelIo {
    /// HTTP is over here.
    Upgraded(UpgradedIo),
    /// The bodies of a request and of its response.
    Bodies(Box<Bodies>),
    /// A stream of a connection that is shared with others.
    Shared(Box<SharedStream>),
}

/// The two directions of a tunnel that is an exchange.
#[derive(Debug)]
pub struct Bodies {
    to_server: PollSender<Copied>,
    from_server: UpstreamBody,
    /// What has come and not been read.
    rest: Bytes,
}

/// A piece of the request's body is no larger.
const MAX_PIECE: usize = 16 * 1024;

impl TunnelIo {
    pub(super) fn of_bodies(pieces: mpsc::Sender<Copied>, response: UpstreamBody) -> Self {
        TunnelIo::Bodies(Box::new(Bodies {
            to_server: PollSender::new(pieces),
            from_server: response,
            rest: Bytes::new(),
        }))
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            TunnelIo::Upgraded(upgraded) => Pin::new(upgraded).poll_read(context, buffer),
            TunnelIo::Bodies(bodies) => bodies.poll_read(context, buffer),
            TunnelIo::Shared(stream) => Pin::new(&mut stream.io).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            TunnelIo::Upgraded(upgraded) => Pin::new(upgraded).poll_write(context, bytes),
            TunnelIo::Bodies(bodies) => bodies.poll_write(context, bytes),
            TunnelIo::Shared(stream) => Pin::new(&mut stream.io).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            TunnelIo::Upgraded(upgraded) => Pin::new(upgraded).poll_flush(context),
            TunnelIo::Bodies(_) => Poll::Ready(Ok(())),
            TunnelIo::Shared(stream) => Pin::new(&mut stream.io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            TunnelIo::Upgraded(upgraded) => Pin::new(upgraded).poll_shutdown(context),
            TunnelIo::Bodies(bodies) => bodies.poll_shutdown(context),
            TunnelIo::Shared(stream) => Pin::new(&mut stream.io).poll_shutdown(context),
        }
    }
}

impl Bodies {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.from_server).poll_frame(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                // Trailers have no place among bytes.
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(count));
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(MAX_PIECE);
        let piece = Copied::Data(Bytes::copy_from_slice(&bytes[..count]));
        ready!(self.poll_send(context, piece))?;
        Poll::Ready(Ok(count))
    }

    /// A body that ends without its end is not whole: so the upstream learns of a client that is lost.
    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.to_server.is_closed() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(context, Copied::End))?;
        self.to_server.close();
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, context: &mut Context<'_>, piece: Copied) -> Poll<io::Result<()>> {
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.to_server.poll_reserve(context)).map_err(broken)?;
        Poll::Ready(self.to_server.send_item(piece).map_err(broken))
    }
}
