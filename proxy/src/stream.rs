//! A connection that is a stream of HTTP/2: one CONNECT (RFC 9113 §8.5) of many, on a connection that two sidecars share.
//!
//! `upstream` opens them, `connection` accepts them; both take them for connections of opaque bytes. What a connection of
//! TCP can do, a stream can: an end of one direction is END_STREAM, and whoever is lost is a reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{Bare, Wire};

/// So many streams share a connection at most; the next begins another.
pub const MAX_STREAMS: u32 = 256;
/// What a stream may have on its way to somebody who does not read.
const STREAM_WINDOW: u32 = 512 * 1024;
/// All streams together as much as each: who does not read must not keep the others from it.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// What is copied at once fits a frame: a long transfer takes a quarter of the calls that it would take with the frames that
/// are usual.
const FRAME_BYTES: u32 = 64 * 1024;
/// What a stream may have written that the connection has not taken yet.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// The library ends a connection on which what small frames cost beside their bytes comes to more: it is that of a stream
/// full of single bytes, and more.
const FRAMING_BYTES: usize = 256 * 1024 * 1024;

/// How such connections are begun by who opens streams.
pub fn client() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(MAX_STREAMS as usize)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_reset_streams(MAX_STREAMS as usize)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(FRAMING_BYTES);
    builder
}

/// How such connections are begun by who accepts streams.
pub fn server() -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_reset_streams(MAX_STREAMS as usize)
        // Clients may all be lost at once.
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(FRAMING_BYTES);
    builder
}

/// The bytes of a stream.
#[derive(Debug)]
pub struct StreamIo {
    to_peer: Outgoing,
    from_peer: Incoming,
    /// What has come and has not been read.
    rest: Bytes,
    /// Whether it is one that either side may drop when it has heard enough.
    is_tunnel: bool,
}

/// To the peer.
#[derive(Debug)]
enum Outgoing {
    /// The answer to CONNECT goes with the first bytes.
    Unanswered(SendResponse<Bytes>),
    Open(SendStream<Bytes>),
    /// All is said.
    Ended,
}

/// From the peer.
#[derive(Debug)]
enum Incoming {
    /// The answer to CONNECT comes before the first bytes.
    Unanswered(ResponseFuture),
    Open(RecvStream),
}

impl StreamIo {
    /// One that has been asked for.
    pub fn asked(answer: ResponseFuture, to_peer: SendStream<Bytes>) -> Self {
        StreamIo {
            to_peer: Outgoing::Open(to_peer),
            from_peer: Incoming::Unanswered(answer),
            rest: Bytes::new(),
            is_tunnel: false,
        }
    }

    /// One that a peer has asked for.
    pub fn accepted(answer: SendResponse<Bytes>, from_peer: RecvStream) -> Self {
        StreamIo {
            to_peer: Outgoing::Unanswered(answer),
            from_peer: Incoming::Open(from_peer),
            rest: Bytes::new(),
            is_tunnel: false,
        }
    }

    /// One of a CONNECT of HTTP that has been answered. Who drops it has said all; a peer that does not want it any more,
    /// too.
    pub fn tunnel(to_peer: SendStream<Bytes>, from_peer: RecvStream) -> Self {
        StreamIo {
            to_peer: Outgoing::Open(to_peer),
            from_peer: Incoming::Open(from_peer),
            rest: Bytes::new(),
            is_tunnel: true,
        }
    }

    /// The next bytes; `None`: there are no more.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match &mut self.from_peer {
                Incoming::Unanswered(answer) => {
                    let response = ready!(Pin::new(answer).poll(context)).map_err(lost)?;
                    if response.status() != StatusCode::OK {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
                    }
                    self.from_peer = Incoming::Open(response.into_body());
                }
                Incoming::Open(stream) => {
                    let data = match ready!(stream.poll_data(context)) {
                        None => return Poll::Ready(Ok(None)),
                        Some(Err(error)) if self.is_tunnel && is_farewell(&error) => {
                            return Poll::Ready(Ok(None));
                        }
                        Some(data) => data.map_err(lost)?,
                    };
                    let taken = stream.flow_control().release_capacity(data.len());
                    taken.map_err(lost)?;
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
            }
        }
    }

    /// The way to the peer, who has been answered; `None`: all is said.
    fn outgoing(&mut self) -> io::Result<Option<&mut SendStream<Bytes>>> {
        if let Outgoing::Unanswered(answer) = &mut self.to_peer {
            let stream = answer.send_response(Response::new(()), false);
            self.to_peer = Outgoing::Open(stream.map_err(lost)?);
        }
        Ok(match &mut self.to_peer {
            Outgoing::Open(stream) => Some(stream),
            Outgoing::Unanswered(_) | Outgoing::Ended => None,
        })
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.poll_next(context))? {
                None => return Poll::Ready(Ok(())),
                Some(data) => self.rest = data,
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = self.outgoing()? else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        stream.reserve_capacity(bytes.len());
        // What there is room for already is not told again.
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(lost(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = stream.capacity().min(bytes.len());
        let piece = Bytes::copy_from_slice(&bytes[..count]);
        stream.send_data(piece, false).map_err(lost)?;
        Poll::Ready(Ok(count))
    }

    /// The connection's task writes.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(stream) = self.outgoing()? {
            stream.send_data(Bytes::new(), true).map_err(lost)?;
            self.to_peer = Outgoing::Ended;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamIo {
    fn drop(&mut self) {
        if self.is_tunnel
            && let Outgoing::Open(stream) = &mut self.to_peer
        {
            // One that was reset has ended already.
            let _ = stream.send_data(Bytes::new(), true);
        }
    }
}

impl Bare for StreamIo {
    fn bare(&mut self) -> Option<(Bytes, &Wire)> {
        None
    }
}

/// Whether a peer says that it wants no more, rather than that something is wrong.
fn is_farewell(error: &h2::Error) -> bool {
    matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL))
}

/// What a connection of TCP would say: its own error, or that the peer has reset it.
fn lost(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}
