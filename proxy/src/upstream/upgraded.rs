//! A connection, or a stream, whose upstream has agreed to speak another protocol.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::ExchangeError;
use super::io::UpstreamIo;
use super::response::UpstreamBody;
use crate::prefixed::Prefixed;
use crate::stream::StreamIo;

/// The bytes of another protocol.
#[derive(Debug)]
pub enum UpgradedIo {
    /// A connection that was one of HTTP/1.1, beginning with what had come of the other protocol with the response.
    Http1(Box<Prefixed<UpstreamIo>>),
    /// A stream of HTTP/2.
    Http2(StreamIo),
}

/// What becomes of the connection that a response has switched; there as soon as the request is written.
pub fn on(
    response: &mut Response<UpstreamBody>,
) -> impl Future<Output = Result<UpgradedIo, ExchangeError>> + Send + use<> {
    let body = std::mem::take(response.body_mut());
    async {
        match body {
            UpstreamBody::Http1(body) => {
                let (io, prefix) = body.into_connection().await?;
                Ok(UpgradedIo::Http1(Box::new(Prefixed { prefix, io })))
            }
            UpstreamBody::Http2(body) => {
                let io = body.into_stream().ok_or(ExchangeError::Ended)?;
                Ok(UpgradedIo::Http2(io))
            }
        }
    }
}

impl AsyncRead for UpgradedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpgradedIo::Http1(io) => Pin::new(&mut **io).poll_read(context, buffer),
            UpgradedIo::Http2(io) => Pin::new(io).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for UpgradedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            UpgradedIo::Http1(io) => Pin::new(&mut **io).poll_write(context, bytes),
            UpgradedIo::Http2(io) => Pin::new(io).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            UpgradedIo::Http1(io) => Pin::new(&mut **io).poll_write_vectored(context, slices),
            UpgradedIo::Http2(io) => Pin::new(io).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            UpgradedIo::Http1(io) => io.is_write_vectored(),
            UpgradedIo::Http2(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpgradedIo::Http1(io) => Pin::new(&mut **io).poll_flush(context),
            UpgradedIo::Http2(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpgradedIo::Http1(io) => Pin::new(&mut **io).poll_shutdown(context),
            UpgradedIo::Http2(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}
