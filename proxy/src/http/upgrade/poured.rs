//! The body of the response to a POST that is a tunnel: what the upstream says, while what the client posts goes there.
//!
//! Both directions are driven by whoever reads the body; without a reader nothing moves, and that is the flow control.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::io::{AsyncWrite, ReadHalf, WriteHalf};
use tokio_util::io::poll_read_buf;

use crate::http::body::SourceError;
use crate::tcp::{Dialled, ServerIo};
use crate::upstream::body::RequestBody;

/// No more is read at once.
const PIECE_BYTES: usize = 16 * 1024;

/// A tunnel between two bodies and a connection.
pub(super) struct Poured {
    from_server: ReadHalf<ServerIo>,
    /// `None`: the client has said all.
    to_server: Option<WriteHalf<ServerIo>>,
    from_client: RequestBody,
    /// What the client has said and the server has not taken.
    rest: Bytes,
    has_client_ended: bool,
    _held: Box<dyn Any + Send>,
}

impl Poured {
    /// What the server has said already is said first: nothing, as nobody has listened to it yet.
    pub(super) fn new(dialled: Dialled, body: RequestBody) -> Self {
        let (io, held) = dialled.into_parts();
        let (from_server, to_server) = tokio::io::split(io);
        Poured {
            from_server,
            to_server: Some(to_server),
            from_client: body,
            rest: Bytes::new(),
            has_client_ended: false,
            _held: Box::new(held),
        }
    }

    /// Passes on what the client says, as far as that is possible now.
    fn poll_up(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(to_server) = &mut self.to_server {
            let to_server = Pin::new(to_server);
            if !self.rest.is_empty() {
                let count = ready!(to_server.poll_write(context, &self.rest))?;
                self.rest.advance(count);
            } else if self.has_client_ended {
                ready!(to_server.poll_shutdown(context))?;
                self.to_server = None;
            } else {
                match Pin::new(&mut self.from_client).poll_frame(context) {
                    Poll::Ready(None) => self.has_client_ended = true,
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(io::Error::other(error)));
                    }
                    Poll::Ready(Some(Ok(frame))) => {
                        self.rest = frame.into_data().unwrap_or_default();
                    }
                    // What was written may lie in a buffer of TLS.
                    Poll::Pending => {
                        ready!(to_server.poll_flush(context))?;
                        return Poll::Pending;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Body for Poured {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        let this = self.get_mut();
        if let Poll::Ready(Err(error)) = this.poll_up(context) {
            return Poll::Ready(Some(Err(SourceError::Tunnel(error))));
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = poll_read_buf(Pin::new(&mut this.from_server), context, &mut piece);
        Poll::Ready(match ready!(read) {
            Ok(0) => None,
            Ok(_) => Some(Ok(Frame::data(piece.freeze()))),
            Err(error) => Some(Err(SourceError::Tunnel(error))),
        })
    }
}
