//! The bytes of an upstream connection, and a look at whether its peer has closed it.

mod arrival;
mod counted;

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio_rustls::client::TlsStream;
use weft_proto::names;

pub(super) use self::arrival::Mark;
use self::counted::Counted;
use crate::cluster::connections::ConnectionPermit;
use crate::cluster::stats::ClusterStats;
use crate::telemetry::session::Session;
use crate::tls::io::MaybeTls;
use crate::wire::Wire;

/// A connection to an endpoint.
#[derive(Debug)]
pub struct UpstreamIo {
    bytes: UpstreamBytes,
    counted: Option<Counted>,
}

/// Its bytes, which may be in TLS.
pub type UpstreamBytes = MaybeTls<Socket, TlsStream<Socket>>;

impl UpstreamIo {
    /// One that nobody counts: a health check's.
    pub fn new(bytes: UpstreamBytes) -> Self {
        UpstreamIo {
            bytes,
            counted: None,
        }
    }

    /// Counts it among those of a cluster from now on.
    pub fn counted(mut self, stats: &Arc<ClusterStats>) -> Self {
        self.counted = Some(Counted::new(Arc::clone(stats)));
        self
    }

    /// How many requests use it, which decides what its end is counted as. Where this is not called it is always in use.
    pub(super) fn used_by(&mut self, requests: &Arc<AtomicU32>) {
        if let Some(counted) = &mut self.counted {
            counted.used_by(Arc::clone(requests));
        }
    }

    /// What tells, without reading, whether the peer has closed it.
    pub(super) fn watch(&self) -> Watch {
        Watch {
            session: self.session().map(Arc::new),
            ..self.socket().watch(!self.bytes.is_tls())
        }
    }

    /// Counts it among those of its cluster until it is closed, whatever it carries by then: a tunnel outlives the HTTP
    /// that asked for it.
    pub(super) fn hold(&self, permit: ConnectionPermit) {
        // There is one already only where this was called before, and one is enough.
        let _ = self.socket().0.permit.set(permit);
    }

    /// What its TLS says of itself and of the endpoint, where it is in TLS.
    pub fn session(&self) -> Option<Session> {
        let MaybeTls::Tls(stream) = &self.bytes else {
            return None;
        };
        let (_, state) = stream.get_ref();
        let cipher = state.negotiated_cipher_suite().map(|suite| suite.suite());
        let certificate = state.peer_certificates().and_then(|chain| chain.first());
        Some(Session::new(state.protocol_version(), cipher, certificate))
    }

    /// Lets go of whoever has waited to read last: as long as the runtime would wake them, what they were made of stays.
    pub(super) fn forget_reader(&self) {
        let mut context = Context::from_waker(Waker::noop());
        // What is ready is seen by the next who looks.
        let _ = self.socket().0.wire.poll_read_ready(&mut context);
    }

    /// Whether it is in TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.bytes.is_tls()
    }

    /// What its handshake has agreed on by ALPN.
    pub(super) fn agreed(&self) -> Option<&[u8]> {
        match &self.bytes {
            MaybeTls::Plain(_) => None,
            MaybeTls::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Whether its peer has agreed that requests of HTTP/1.1 share it; of a local channel, by its welcome.
    pub(super) fn is_shared(&self) -> bool {
        !self.is_tls() || self.agreed() == Some(names::ALPN_HTTP1_STREAMS.as_bytes())
    }

    fn socket(&self) -> &Socket {
        match &self.bytes {
            MaybeTls::Plain(socket) => socket,
            MaybeTls::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Our own end of it; none of a local channel.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.socket().0.wire.local_address()
    }
}

/// A connection that somebody else may look at.
#[derive(Debug)]
pub struct Socket(Arc<Held>);

/// What is looked at.
#[derive(Debug)]
struct Held {
    wire: Wire,
    /// How many bytes the kernel has taken, and the end as one more, as TCP counts it.
    written: AtomicU64,
    /// Its place among the connections of its cluster; given up after the socket is closed.
    permit: OnceLock<ConnectionPermit>,
}

impl Socket {
    /// Over a connection.
    pub fn over(wire: Wire) -> Self {
        Socket(Arc::new(Held {
            wire,
            written: AtomicU64::new(0),
            permit: OnceLock::new(),
        }))
    }

    fn watch(&self, is_plain: bool) -> Watch {
        Watch {
            socket: Arc::downgrade(&self.0),
            local: self.0.wire.local_address(),
            session: None,
            is_plain,
        }
    }

    fn count(&self, written: &io::Result<usize>) {
        if let Ok(count) = written {
            self.0.written.fetch_add(*count as u64, Ordering::Relaxed);
        }
    }
}

/// Looks at a connection that another owns. It does not keep it open.
#[derive(Debug)]
pub(super) struct Watch {
    socket: Weak<Held>,
    /// Our own end of it.
    pub(super) local: Option<SocketAddr>,
    /// What its TLS says.
    pub(super) session: Option<Arc<Session>>,
    is_plain: bool,
}

/// What is to be seen of an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing has come: it can be used.
    Quiet,
    /// Something has come that whoever reads it has to judge, such as a session ticket.
    Something,
    /// The peer has closed it, or says what nobody has asked for.
    Over,
}

impl Watch {
    /// Whether the peer has closed it. What has come before the end is for whoever reads it.
    pub(super) fn look_for_end(&self) -> bool {
        let Some(socket) = self.socket.upgrade() else {
            return true;
        };
        let mut byte = [MaybeUninit::uninit(); 1];
        match SockRef::from(&socket.wire).peek(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        }
    }

    /// What has been written so far; `None`: it is closed.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.socket.upgrade().map(Mark::of)
    }

    /// The kernel is asked only where the runtime has heard that there is something to read. What has come since the
    /// runtime asked for events is not seen: a request that is sent upon it is sent again ([`Spare`](super::lease::Spare)).
    pub(super) fn look(&self) -> Seen {
        let Some(socket) = self.socket.upgrade() else {
            return Seen::Over;
        };
        let mut byte = [MaybeUninit::uninit(); 1];
        let peek = |fd: BorrowedFd<'_>| SockRef::from(&fd).peek(&mut byte);
        match socket.wire.try_with(Interest::READABLE, peek) {
            Ok(0) => Seen::Over,
            // An answer without a question, before HTTP: what is left of it is no good.
            Ok(_) if self.is_plain => Seen::Over,
            Ok(_) => Seen::Something,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Seen::Quiet,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Seen::Something,
            Err(_) => Seen::Over,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.wire.poll_read_shared(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut &self.0.wire).poll_write(context, bytes);
        if let Poll::Ready(written) = &written {
            self.count(written);
        }
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut &self.0.wire).poll_write_vectored(context, slices);
        if let Poll::Ready(written) = &written {
            self.count(written);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut &self.0.wire).poll_shutdown(context);
        if matches!(ended, Poll::Ready(Ok(()))) {
            self.count(&Ok(1));
        }
        ended
    }
}
