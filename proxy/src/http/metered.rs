//! The bytes of a downstream connection of HTTP, counted, and who has ended it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::HttpConnection;
use crate::telemetry::managers::HttpEvent;

/// A connection whose bytes are counted.
pub(super) struct Metered<IO> {
    io: IO,
    connection: Arc<HttpConnection>,
    is_left: bool,
}

impl<IO> Metered<IO> {
    pub(super) fn new(io: IO, connection: Arc<HttpConnection>) -> Self {
        Metered {
            io,
            connection,
            is_left: false,
        }
    }

    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(sent)) => {
                let stats = self.connection.managed.stats();
                stats.add(HttpEvent::SentBytes, *sent as u64);
            }
            Poll::Ready(Err(_)) => self.is_left = true,
            Poll::Pending => {}
        }
        written
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let received = buffer.filled().len() - before;
        match &read {
            Poll::Ready(Ok(())) if received > 0 => {
                let stats = self.connection.managed.stats();
                stats.add(HttpEvent::ReceivedBytes, received as u64);
            }
            // The end, or none that was announced.
            Poll::Ready(_) => self.is_left = true,
            Poll::Pending => {}
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.written(written)
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

impl<IO> Drop for Metered<IO> {
    fn drop(&mut self) {
        let stats = self.connection.managed.stats();
        let is_in_request = self.connection.has_requests();
        let (event, in_request) = match self.is_left {
            true => (HttpEvent::EndedByClient, HttpEvent::EndedByClientInRequest),
            false => (HttpEvent::EndedHere, HttpEvent::EndedHereInRequest),
        };
        stats.count(event);
        if is_in_request {
            stats.count(in_request);
        }
    }
}
