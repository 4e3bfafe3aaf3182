//! A connection of HTTP/1.1 as its bytes: what has been read of it and not been used, and how far its exchange is.
//!
//! Shared by who lends it, who reads the body of its response, and who writes the rest of a request that was answered
//! early; one of them at a time, so that its lock is uncontended. It is closed when the last of them has dropped it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;

use super::Options;
use super::error::Http1Error;
use crate::http1::reading::Reading;
use crate::upstream::io::UpstreamIo;

/// A connection, and what is known of the exchange on it.
#[derive(Debug)]
pub(super) struct Line {
    /// `None`: it is no connection of HTTP any more.
    io: Option<UpstreamIo>,
    pub(super) reading: Reading,
    pub(super) options: Options,
    is_reading: bool,
    is_writing: bool,
    /// Whether the peer takes another request.
    keeps_alive: bool,
    /// Who reads, where somebody else writes.
    reader: Option<Waker>,
    /// Why the request has failed after its response had begun.
    failure: Option<Http1Error>,
}

/// A connection that several hold.
pub(super) type SharedLine = Arc<Mutex<Line>>;

impl Line {
    pub(super) fn over(io: UpstreamIo, options: Options) -> Self {
        Line {
            io: Some(io),
            reading: Reading::default(),
            options,
            is_reading: false,
            is_writing: false,
            keeps_alive: true,
            reader: None,
            failure: None,
        }
    }

    /// Whether it can carry a request.
    pub(super) fn is_free(&self) -> bool {
        self.io.is_some() && !self.is_reading && !self.is_writing && self.keeps_alive
    }

    /// Whether there is more to come of a response.
    pub(super) fn is_reading(&self) -> bool {
        self.is_reading
    }

    /// It carries a request from now on. Whoever does not bring it to its end leaves a connection that is not free.
    pub(super) fn begin(&mut self) {
        self.is_reading = true;
        self.is_writing = true;
        self.reading.begin();
    }

    /// This exchange is its last.
    pub(super) fn wear_out(&mut self) {
        self.keeps_alive = false;
    }

    /// The request has been written.
    pub(super) fn end_writing(&mut self) {
        self.is_writing = false;
        self.wake_reader();
    }

    /// The request cannot be written to its end: who reads the response is told, unless that is whole.
    pub(super) fn fail(&mut self, error: Http1Error) {
        self.keeps_alive = false;
        self.failure = Some(error);
        self.wake_reader();
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The response has been read. What the peer has said beyond it nobody has asked for.
    pub(super) fn end_reading(&mut self) {
        self.is_reading = false;
        self.keeps_alive &= self.reading.unread.is_empty();
        self.reading = Reading::default();
    }

    /// What it holds of what was read.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.reading.memory()
    }

    /// Where the request is written to.
    pub(super) fn io(&mut self) -> Result<&mut UpstreamIo, Http1Error> {
        self.io.as_mut().ok_or(Http1Error::Taken)
    }

    /// The connection, for another protocol, and what has come of that, once the request has been written.
    pub(super) fn poll_taken(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(UpstreamIo, Bytes), Http1Error>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(error));
        }
        if self.is_writing {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let unread = std::mem::take(&mut self.reading.unread);
        let io = self.io.take().ok_or(Http1Error::Taken);
        Poll::Ready(io.map(|io| (io, unread)))
    }

    /// Reads more, of which so much is expected at least; 0: it has ended. Says why not, as who writes does.
    pub(super) fn poll_more(
        &mut self,
        context: &mut Context<'_>,
        expected: Option<u64>,
    ) -> Poll<Result<usize, Http1Error>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(error));
        }
        let io = self.io.as_mut().ok_or(Http1Error::Taken)?;
        let room = (expected, self.options.max_buffer);
        let read = self.reading.poll_more(context, io, room);
        if read.is_pending() && self.is_writing {
            self.reader = Some(context.waker().clone());
        }
        read.map_err(|source| Http1Error::Lost {
            has_begun: true,
            source,
        })
    }

    /// Lets go of whoever has read from it last, where nobody does.
    pub(super) fn forget_reader(&self) {
        if let Some(io) = self.io.as_ref().filter(|_| self.is_free()) {
            io.forget_reader();
        }
    }

    /// Reads what has come on a connection that lies idle and is nothing of HTTP, such as a session ticket; whether
    /// it can still be used.
    pub(super) fn poll_idle(&mut self, context: &mut Context<'_>) -> bool {
        let is_free = self.is_free();
        let is_quiet = self
            .io
            .as_mut()
            .is_some_and(|io| is_free && self.reading.poll_small(context, io).is_pending());
        self.keeps_alive &= is_quiet;
        is_quiet
    }
}

impl Drop for Line {
    /// In TLS the end of what is said is said (RFC 8446 §6.1), as far as that can be done at once.
    fn drop(&mut self) {
        let Some(io) = self.io.as_mut().filter(|io| io.is_tls()) else {
            return;
        };
        let mut context = Context::from_waker(Waker::noop());
        let _ = Pin::new(io).poll_shutdown(&mut context);
    }
}
