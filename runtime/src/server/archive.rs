//! Between gRPC streams and blocking readers: archives that arrive in chunks, progress that leaves in lines.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;
use tonic::Status as Refusal;

/// Chunks that wait to be read.
const CHUNKS: usize = 16;

/// The blocking end of a stream of chunks.
pub(super) struct Chunks {
    receiver: mpsc::Receiver<Result<Bytes, Refusal>>,
    current: Bytes,
}

/// A reader for a blocking task, and what feeds it.
pub(super) fn channel() -> (mpsc::Sender<Result<Bytes, Refusal>>, Chunks) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let chunks = Chunks {
        receiver,
        current: Bytes::new(),
    };
    (sender, chunks)
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Ok(chunk)) => self.current = chunk,
                // A client that went away has not sent all: that is not the end of an archive.
                Some(Err(refusal)) => return Err(io::Error::other(refusal.message().to_owned())),
                None => return Ok(0),
            }
        }
        let read = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_read_as_one_stream() {
        let (sender, mut chunks) = channel();
        for chunk in ["ab", "", "cde"] {
            sender
                .blocking_send(Ok(Bytes::from_static(chunk.as_bytes())))
                .expect("sent");
        }
        drop(sender);

        let mut text = String::new();
        chunks.read_to_string(&mut text).expect("read");

        assert_eq!(text, "abcde");
    }

    #[test]
    fn a_broken_stream_is_not_taken_for_the_end() {
        let (sender, mut chunks) = channel();
        sender
            .blocking_send(Err(Refusal::cancelled("gone")))
            .expect("sent");

        assert!(chunks.read(&mut [0; 8]).is_err());
    }
}
