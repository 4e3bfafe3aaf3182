//! A connection of HTTP/1.1 as its bytes: what has been read of it and not been used, and how far its exchange is.
//!
//! Shared by who lends it, who reads the body of its response, and who writes the rest of a request that was answered
//! early; one of them at a time, so that its lock is uncontended. It is closed when the last of them has dropped it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::Options;
use super::error::Http1Error;
use crate::upstream::io::UpstreamIo;

/// A connection, and what is known of the exchange on it.
#[derive(Debug)]
pub(super) struct Line {
    /// `None`: it is no connection of HTTP any more.
    io: Option<UpstreamIo>,
    /// What has come and was not used.
    pub(super) unread: Bytes,
    /// Memory for large reads; given back when the response has ended.
    large: BytesMut,
    pub(super) options: Options,
    /// Whether the last read has found as much as there was room for.
    is_flowing: bool,
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

/// What is read at once, as long as little comes.
const SMALL_READ: usize = 16 * 1024;
/// What is no larger is kept side by side: memory is taken for several at once, and stays as long as one of them does.
const SHORT_READ: usize = 2 * 1024;
const SHORT_READS: usize = 8 * 1024;

thread_local! {
    /// Small reads are made into here, and only what has come takes memory of its own: a connection that waits has none.
    static SMALL: RefCell<Box<[u8]>> = RefCell::new(vec![0; SMALL_READ].into_boxed_slice());
    /// Where the next short ones are kept.
    static SHORT: RefCell<BytesMut> = RefCell::default();
}

impl Line {
    pub(super) fn over(io: UpstreamIo, options: Options) -> Self {
        Line {
            io: Some(io),
            unread: Bytes::new(),
            large: BytesMut::new(),
            options,
            is_flowing: false,
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
        self.is_flowing = false;
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
        self.keeps_alive &= self.unread.is_empty();
        self.unread = Bytes::new();
        self.large = BytesMut::new();
    }

    /// What it holds of what was read.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.unread.len() + self.large.capacity()
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
        let unread = std::mem::take(&mut self.unread);
        let io = self.io.take().ok_or(Http1Error::Taken);
        Poll::Ready(io.map(|io| (io, unread)))
    }

    /// A connection that lies idle, for somebody else.
    pub(super) fn take_idle(&mut self) -> Option<UpstreamIo> {
        self.is_free().then(|| self.io.take()).flatten()
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
        let expected = expected.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let is_large = expected.map_or(self.is_flowing, |bytes| bytes > SMALL_READ);
        let read = match is_large && self.unread.is_empty() {
            true => self.poll_large(context, expected),
            false => self.poll_small(context),
        };
        if read.is_pending() && self.is_writing {
            self.reader = Some(context.waker().clone());
        }
        read.map_err(|source| Http1Error::Lost {
            has_begun: true,
            source,
        })
    }

    fn poll_small(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        SMALL.with_borrow_mut(|memory| {
            let mut buffer = ReadBuf::new(memory);
            ready!(Pin::new(io).poll_read(context, &mut buffer))?;
            let read = buffer.filled();
            self.is_flowing = read.len() == SMALL_READ;
            self.unread = match self.unread.is_empty() {
                true => kept(read),
                false => joined(std::mem::take(&mut self.unread), read),
            };
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Reads into memory that is handed on as it is, and used again where whoever got it has dropped it by then.
    fn poll_large(
        &mut self,
        context: &mut Context<'_>,
        expected: Option<usize>,
    ) -> Poll<io::Result<usize>> {
        let io = self.io.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let most = self.options.max_buffer;
        let room = expected.map_or(most, |bytes| bytes.min(most));
        self.large.reserve(room);
        let count = ready!(poll_read_buf(Pin::new(io), context, &mut self.large))?;
        self.is_flowing = count >= SMALL_READ;
        self.unread = self.large.split().freeze();
        Poll::Ready(Ok(count))
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
        let is_quiet = self.is_free() && self.poll_small(context).is_pending();
        self.keeps_alive &= is_quiet;
        is_quiet
    }
}

/// What has been read, in memory of its own or beside others.
fn kept(read: &[u8]) -> Bytes {
    if read.len() > SHORT_READ {
        return Bytes::copy_from_slice(read);
    }
    SHORT.with_borrow_mut(|memory| {
        if memory.capacity() < read.len() {
            memory.reserve(SHORT_READS);
        }
        memory.extend_from_slice(read);
        memory.split().freeze()
    })
}

/// More behind what has come: what comes in many small pieces is not copied with each of them.
fn joined(unread: Bytes, more: &[u8]) -> Bytes {
    let mut unread = unread
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    unread.extend_from_slice(more);
    unread.freeze()
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
