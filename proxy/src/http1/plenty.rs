//! Reading in quantity: all that is there in one go, as far as there is room, and room for as much as comes.
//!
//! What is read together is written together. A peer that waits is woken by each write, which costs more than to copy
//! what is written: so a body that comes in records (TLS) or in little pieces is passed on in large ones.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// No more is read at once: it gains little, and what is then encrypted no longer fits the processor's cache.
pub(crate) const MAX_READ: usize = 128 * 1024;

/// Reads all that is there.
#[derive(Debug, Default)]
pub(crate) struct Thorough {
    /// What came after the bytes of the last read.
    failure: Option<io::Error>,
}

impl Thorough {
    /// Fails where the last read should have after its bytes: for who reads by other means now.
    ///
    /// # Errors
    /// What the reader has said.
    pub(crate) fn told(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Reads until there is no room or nothing more for now; 0: it has ended.
    ///
    /// # Errors
    /// As the reader says, after what has come before.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
        buffer: &mut impl BufMut,
    ) -> Poll<io::Result<usize>> {
        self.told()?;
        let mut count = 0;
        while buffer.has_remaining_mut() {
            match poll_read_buf(Pin::new(&mut *io), context, buffer) {
                Poll::Ready(Ok(read)) if read > 0 => count += read,
                Poll::Ready(Err(failure)) if count > 0 => {
                    self.failure = Some(failure);
                    break;
                }
                // An end is told again.
                Poll::Ready(Ok(_)) | Poll::Pending if count > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(count))
    }
}

/// How much room a read has: as much as has been filled before, and more where that was all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    least: usize,
    most: usize,
    now: usize,
}

impl Room {
    /// At first so much; never less than the least, nor more than the most, whatever that is.
    pub(crate) fn new(least: usize, first: usize, most: usize) -> Self {
        let least = least.min(most);
        Room {
            least,
            most,
            now: first.clamp(least, most),
        }
    }

    /// For the next read.
    pub(crate) fn bytes(self) -> usize {
        self.now
    }

    /// A read has brought so much.
    pub(crate) fn learn(&mut self, read: usize) {
        if read >= self.now {
            self.now = self.most.min(2 * self.now);
        } else if read < self.now / 4 {
            self.now = self.least.max(self.now / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::stream::{self, Iter};
    use tokio_util::io::StreamReader;

    use super::*;

    type Said = io::Result<&'static [u8]>;
    type Pieces = StreamReader<Iter<std::vec::IntoIter<Said>>, &'static [u8]>;

    /// Says one of these with each read.
    fn pieces(said: impl Into<Vec<Said>>) -> Pieces {
        StreamReader::new(stream::iter(said.into()))
    }

    async fn read(reader: &mut Thorough, io: &mut Pieces) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        poll_fn(|context| reader.poll_read(context, io, &mut (&mut bytes).limit(8))).await?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn what_comes_in_pieces_is_read_at_once_as_far_as_there_is_room() {
        let mut io = pieces([&b"abc"[..], b"def", b"ghi"].map(Ok));
        let mut reader = Thorough::default();

        assert_eq!(read(&mut reader, &mut io).await.unwrap(), b"abcdefgh");
        assert_eq!(read(&mut reader, &mut io).await.unwrap(), b"i");
        assert_eq!(read(&mut reader, &mut io).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_read_before_it() {
        let lost = io::Error::from(io::ErrorKind::ConnectionReset);
        let mut io = pieces([Ok(&b"abc"[..]), Err(lost)]);
        let mut reader = Thorough::default();

        assert_eq!(read(&mut reader, &mut io).await.unwrap(), b"abc");
        let error = read(&mut reader, &mut io).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn room_grows_while_it_is_filled_and_shrinks_where_little_comes() {
        let mut room = Room::new(16, 16, 100);
        let mut sizes = vec![];
        for read in [16, 32, 64, 100, 50, 20, 0, 0, 0] {
            room.learn(read);
            sizes.push(room.bytes());
        }

        assert_eq!(sizes, [32, 64, 100, 100, 100, 50, 25, 16, 16]);
    }

    #[test]
    fn room_is_never_more_than_is_allowed() {
        let mut room = Room::new(16, 64, 10);
        room.learn(10);
        assert_eq!(room.bytes(), 10);
    }
}
