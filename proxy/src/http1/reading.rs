//! How a connection is read: what has come and was not used, and memory only while there is something to hold.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

/// What has been read of a connection.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// What has come and was not used.
    pub(crate) unread: Bytes,
    /// Memory for large reads; given back when a message has ended.
    large: BytesMut,
    /// Whether the last read has found as much as there was room for.
    is_flowing: bool,
}

/// No less of a body is read at once, where it is known to come.
const MIN_BUFFER_BYTES: usize = 8 * 1024;
/// No more is: it gains nothing.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// The most that is read of a body at once where so much may be buffered.
pub(crate) fn most_at_once(buffer_bytes: usize) -> usize {
    buffer_bytes.clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES)
}

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

impl Reading {
    /// A message begins.
    pub(crate) fn begin(&mut self) {
        self.is_flowing = false;
    }

    /// A message has ended: lets go of all memory but what has come beyond it.
    pub(crate) fn end(&mut self) {
        self.large = BytesMut::new();
        if self.unread.is_empty() {
            // An empty piece would hold all that it was a piece of.
            self.unread = Bytes::new();
        }
    }

    /// What it holds of what was read.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.unread.len() + self.large.capacity()
    }

    /// Reads more, of which so much is expected at least, and at most so much at once; 0: it has ended.
    pub(crate) fn poll_more<IO: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        io: &mut IO,
        (expected, most): (Option<u64>, usize),
    ) -> Poll<io::Result<usize>> {
        let expected = expected.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let is_large = expected.map_or(self.is_flowing, |bytes| bytes > SMALL_READ);
        match is_large && self.unread.is_empty() {
            true => {
                let room = expected.map_or(most, |bytes| bytes.min(most));
                self.poll_large(context, io, room)
            }
            false => self.poll_small(context, io),
        }
    }

    /// Reads a little.
    pub(crate) fn poll_small<IO: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<io::Result<usize>> {
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
    fn poll_large<IO: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        io: &mut IO,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        self.large.reserve(room);
        let count = ready!(poll_read_buf(Pin::new(io), context, &mut self.large))?;
        self.is_flowing = count >= SMALL_READ;
        self.unread = self.large.split().freeze();
        Poll::Ready(Ok(count))
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
