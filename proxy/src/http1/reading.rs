//! How a connection is read: what has come and was not used, and memory only while there is something to hold.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::plenty::{MAX_READ, Room, Thorough};

/// What has been read of a connection.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// What has come and was not used.
    pub(crate) unread: Bytes,
    /// Memory for large reads; given back when a message has ended.
    large: BytesMut,
    /// How much of that the next of them has, once there was one.
    room: Option<Room>,
    thorough: Thorough,
    /// Whether the last read has found as much as there was room for.
    is_flowing: bool,
}

/// No less of a body is read at once, where it is known to come.
const MIN_BUFFER_BYTES: usize = 8 * 1024;

/// The most that is read of a body at once where so much may be buffered.
pub(crate) fn most_at_once(buffer_bytes: usize) -> usize {
    buffer_bytes.clamp(MIN_BUFFER_BYTES, MAX_READ)
}

/// What is read at once, as long as little comes.
const SMALL_READ: usize = 16 * 1024;
/// What is read at once at first, where nobody has told how much comes.
const LARGE_READ: usize = 64 * 1024;
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
        self.room = None;
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
            true => self.poll_large(context, io, (expected, most)),
            false => self.poll_small(context, io),
        }
    }

    /// Reads a little.
    pub(crate) fn poll_small<IO: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<io::Result<usize>> {
        self.thorough.told()?;
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
        (expected, most): (Option<usize>, usize),
    ) -> Poll<io::Result<usize>> {
        // What is told to come may come at once.
        let first = expected.unwrap_or(LARGE_READ);
        let room = self
            .room
            .get_or_insert_with(|| Room::new(SMALL_READ, first, most));
        let bytes = expected.map_or(room.bytes(), |expected| expected.min(room.bytes()));
        self.large.reserve(bytes);
        let buffer = &mut (&mut self.large).limit(bytes);
        let count = ready!(self.thorough.poll_read(context, io, buffer))?;
        room.learn(count);
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::stream;
    use tokio_util::io::StreamReader;

    use super::*;

    /// What a connection says that is lost after these bytes, read with so much expected and allowed at once.
    async fn read_to_its_loss(bytes: usize, (expected, most): (Option<u64>, usize)) -> Vec<usize> {
        let lost = io::Error::from(io::ErrorKind::ConnectionReset);
        let said = [Ok(vec![7; bytes].into()), Err(lost)];
        let mut io = StreamReader::new(stream::iter::<[io::Result<Bytes>; 2]>(said));
        let mut reading = Reading::default();
        let mut sizes = vec![];
        loop {
            let room = (expected, most);
            match poll_fn(|context| reading.poll_more(context, &mut io, room)).await {
                Ok(0) => panic!("ended well"),
                Ok(read) => sizes.push(read),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    return sizes;
                }
            }
            reading.unread = Bytes::new();
        }
    }

    #[tokio::test]
    async fn a_large_read_takes_as_much_as_is_expected_and_allowed() {
        let sizes = read_to_its_loss(600_000, (Some(1 << 20), 128 * 1024)).await;
        assert_eq!(sizes, [131_072, 131_072, 131_072, 131_072, 75_712]);

        let sizes = read_to_its_loss(100_000, (Some(50_000), 128 * 1024)).await;
        assert_eq!(sizes, [50_000, 50_000]);
    }

    #[tokio::test]
    async fn what_is_not_announced_is_read_in_growing_pieces_to_the_loss_of_its_connection() {
        let sizes = read_to_its_loss(500_000, (None, 128 * 1024)).await;
        assert_eq!(sizes, [16_384, 65_536, 131_072, 131_072, 131_072, 24_864]);

        let sizes = read_to_its_loss(16_384 + 100, (None, 128 * 1024)).await;
        assert_eq!(sizes, [16_384, 100]);
    }
}
