//! The bytes of a downstream connection, beginning with those already read.

use bytes::Bytes;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::prefixed::Prefixed;
use crate::tls::io::MaybeTls;
use crate::wire::{Bare, Wire};

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

    /// What has been read of it, and not been used.
    pub(super) fn read_ahead(&self) -> &[u8] {
        match self {
            MaybeTls::Plain(io) => &io.prefix,
            MaybeTls::Tls(io) => &io.prefix,
        }
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
