//! A connection, or a stream, whose upstream has agreed to speak another protocol.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::ExchangeError;
use super::http1::Http1Body;
use super::io::UpstreamIo;
use super::response::UpstreamBody;
use crate::prefixed::Prefixed;

/// The bytes of another protocol.
#[derive(Debug)]
pub enum UpgradedIo {
    /// A connection that was one of HTTP/1.1, beginning with what had come of the other protocol with the response.
    Http1(Box<Prefixed<UpstreamIo>>),
    /// A stream of HTTP/2.
    Hyper(TokioIo<Upgraded>),
}

/// What becomes of the connection that a response has switched; there as soon as the request is written.
pub fn on(
    response: &mut Response<UpstreamBody>,
) -> impl Future<Output = Result<UpgradedIo, ExchangeError>> + Send + use<> {
    enum Switch {
        Http1(Http1Body),
        Hyper(hyper::upgrade::OnUpgrade),
    }
    let switch = match std::mem::take(response.body_mut()) {
        UpstreamBody::Http1(body) => Switch::Http1(body),
        UpstreamBody::Hyper(_) => Switch::Hyper(hyper::upgrade::on(response)),
    };
    async {
        Ok(match switch {
            Switch::Http1(body) => {
                let (io, prefix) = body.into_connection().await?;
                UpgradedIo::Http1(Box::new(Prefixed { prefix, io }))
            }
            Switch::Hyper(upgraded) => UpgradedIo::Hyper(TokioIo::new(upgraded.await?)),
        })
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
            UpgradedIo::Hyper(io) => Pin::new(io).poll_read(context, buffer),
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
            UpgradedIo::Hyper(io) => Pin::new(io).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            UpgradedIo::Http1(io) => Pin::new(&mut **io).poll_write_vectored(context, slices),
            UpgradedIo::Hyper(io) => Pin::new(io).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            UpgradedIo::Http1(io) => io.is_write_vectored(),
            UpgradedIo::Hyper(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpgradedIo::Http1(io) => Pin::new(&mut **io).poll_flush(context),
            UpgradedIo::Hyper(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpgradedIo::Http1(io) => Pin::new(&mut **io).poll_shutdown(context),
            UpgradedIo::Hyper(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}
