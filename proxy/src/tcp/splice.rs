//! Moving bytes from one socket to another within the kernel (splice(2)), through a pipe.
//!
//! `copy` turns to it for what comes in quantity, where nothing lies between the sockets and the bytes. A pipe is lent
//! while bytes are in it and no longer: the worker keeps a few for the next who needs one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use crate::wire::Wire;

/// What a pipe is asked to hold; the system may allow less.
const PIPE_BYTES: usize = 256 * 1024;
/// No more pipes are kept for later by a worker.
const MAX_KEPT: usize = 16;

thread_local! {
    static KEPT: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

/// Both ends of a pipe.
struct Ends {
    reading: OwnedFd,
    writing: OwnedFd,
}

/// A pipe on loan. One that still holds bytes is nobody else's: it is closed.
struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

/// What one look at the sender has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// So many bytes, all of them delivered.
    Bytes(usize),
    /// The sender has said all.
    End,
    /// These sockets cannot be spliced.
    Unsupported,
}

/// Why bytes do not move, and which side is to blame.
#[derive(Debug)]
pub(super) enum SpliceFailure {
    /// Reading.
    Sender(io::Error),
    /// Writing.
    Receiver(io::Error),
}

impl Pipe {
    fn lend() -> io::Result<Self> {
        let kept = KEPT.with_borrow_mut(Vec::pop);
        let ends = match kept {
            Some(ends) => ends,
            None => Ends::make()?,
        };
        Ok(Pipe {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Takes what the sender has.
    fn fill(&mut self, from: &Wire) -> io::Result<usize> {
        let Some(ends) = &self.ends else {
            return Ok(0);
        };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        self.held = from.try_with(Interest::READABLE, |socket| {
            Ok(splice(
                socket,
                None,
                &ends.writing,
                None,
                PIPE_BYTES,
                flags,
            )?)
        })?;
        Ok(self.held)
    }

    /// Gives the receiver all that is in it.
    async fn drain(&mut self, to: &Wire) -> io::Result<()> {
        let Some(ends) = &self.ends else {
            return Ok(());
        };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        while self.held > 0 {
            let given = to.try_with(Interest::WRITABLE, |socket| {
                Ok(splice(&ends.reading, None, socket, None, self.held, flags)?)
            });
            match given {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(given) => self.held -= given,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|context| to.poll_write_ready(context)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let (Some(ends), 0) = (self.ends.take(), self.held) {
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < MAX_KEPT {
                    kept.push(ends);
                }
            });
        }
    }
}

impl Ends {
    fn make() -> io::Result<Self> {
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // An ordinary user may have so much in all pipes together; a smaller one does, too.
        let _ = fcntl_setpipe_size(&writing, PIPE_BYTES);
        Ok(Ends { reading, writing })
    }
}

/// Moves what the sender has to say next.
///
/// # Errors
/// One of the sockets fails. What was taken from the sender before is lost with the connection.
pub(super) async fn some(from: &Wire, to: &Wire) -> Result<Moved, SpliceFailure> {
    loop {
        let ready = poll_fn(|context| from.poll_read_ready(context)).await;
        ready.map_err(SpliceFailure::Sender)?;
        // Without descriptors for a pipe the bytes are copied.
        let Ok(mut pipe) = Pipe::lend() else {
            return Ok(Moved::Unsupported);
        };
        match pipe.fill(from) {
            Ok(0) => return Ok(Moved::End),
            Ok(taken) => {
                pipe.drain(to).await.map_err(SpliceFailure::Receiver)?;
                return Ok(Moved::Bytes(taken));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if is_unsupported(&error) => return Ok(Moved::Unsupported),
            Err(error) => return Err(SpliceFailure::Sender(error)),
        }
    }
}

/// What a kernel or a seccomp profile says that has no splice for these sockets.
fn is_unsupported(error: &io::Error) -> bool {
    let code = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::PERM)
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    /// A connection of TCP: one end, and the other as a wire.
    async fn connected() -> (TcpStream, Wire) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = TcpStream::connect(address).await.unwrap();
        (peer, Wire::Tcp(listener.accept().await.unwrap().0))
    }

    fn kept() -> usize {
        KEPT.with_borrow(Vec::len)
    }

    #[tokio::test]
    async fn all_arrives_as_it_was_said_and_the_pipe_is_kept_for_the_next() {
        let ((mut sender, from), (mut receiver, to)) = (connected().await, connected().await);
        let said: Vec<u8> = (0..5 * PIPE_BYTES)
            .map(|index| (index % 251) as u8)
            .collect();
        let sending = said.clone();
        let sent = tokio::spawn(async move {
            sender.write_all(&sending).await.unwrap();
            sender.shutdown().await.unwrap();
        });
        let heard = tokio::spawn(async move {
            let mut heard = Vec::new();
            receiver.read_to_end(&mut heard).await.unwrap();
            heard
        });

        let mut moved = 0;
        while let Moved::Bytes(bytes) = some(&from, &to).await.unwrap() {
            moved += bytes;
            assert_eq!(kept(), 1, "the pipe is nobody's between two looks");
        }
        drop(to);

        sent.await.unwrap();
        assert_eq!(moved, said.len());
        assert!(heard.await.unwrap() == said);
    }

    #[tokio::test]
    async fn a_pipe_with_bytes_in_it_is_not_kept() {
        let ((mut sender, from), (receiver, to)) = (connected().await, connected().await);
        sender.write_all(b"to nobody").await.unwrap();
        let mut pipe = Pipe::lend().unwrap();
        poll_fn(|context| from.poll_read_ready(context))
            .await
            .unwrap();

        assert_eq!(pipe.fill(&from).unwrap(), 9);
        drop((pipe, to, receiver));

        assert_eq!(kept(), 0);
    }

    #[tokio::test]
    async fn local_channels_are_spliced_too() {
        let (mut sender, from) = UnixStream::pair().unwrap();
        let (mut receiver, to) = UnixStream::pair().unwrap();
        sender.write_all(b"hello").await.unwrap();

        let moved = some(&Wire::Local(from), &Wire::Local(to)).await.unwrap();

        let mut heard = [0; 5];
        receiver.read_exact(&mut heard).await.unwrap();
        assert_eq!((moved, &heard), (Moved::Bytes(5), b"hello"));
    }
}
