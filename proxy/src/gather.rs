//! Writes of an HTTP/2 connection, gathered over one turn of its task.
//!
//! The library writes a head, and each frame of data, by a call of its own. What comes together leaves together here:
//! where it asks for a flush its task has another turn first, at whose end the frames are written that others have added
//! meanwhile. A turn is a poll of the task, which is told by [`Turns`].

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose writes are gathered.
#[derive(Debug)]
pub struct Gathered<IO: AsyncWrite + Unpin> {
    io: IO,
    held: Vec<u8>,
    /// How much of it was written.
    written: usize,
    state: State,
    turns: Turns,
}

/// When what is held is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At once: the peer has said nothing yet. What greets it is not followed by another turn.
    Greeting,
    /// When it is asked for.
    Open,
    /// In the turn after this one.
    Asked { turn: u32 },
    /// Now: the socket did not take all.
    Writing,
}

/// Counts the turns of a connection's task, and how often something has been read in them.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    turns: AtomicU32,
    reads: AtomicU32,
}

/// A connection whose turns are counted.
#[derive(Debug)]
pub struct InTurns<C> {
    connection: Pin<Box<C>>,
    turns: Turns,
}

/// No more is held than this; it is written in pieces of that size.
const MAX_HELD: usize = 64 * 1024;
/// So many buffers are kept by a worker for whoever holds something next.
const MAX_SPARE: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Turns {
    /// Counts those of the connection that is made of the gathered writes.
    pub fn of<C>(self, connection: C) -> InTurns<C> {
        InTurns {
            connection: Box::pin(connection),
            turns: self,
        }
    }

    /// The task is polled; to be called before the connection is.
    pub fn begin(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something has been read. Who sees another number has heard from the peer.
    pub fn reads(&self) -> u32 {
        self.0.reads.load(Ordering::Relaxed)
    }

    fn current(&self) -> u32 {
        self.0.turns.load(Ordering::Relaxed)
    }
}

impl<C> InTurns<C> {
    /// The connection itself.
    pub fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future> Future for InTurns<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        self.turns.begin();
        self.connection.as_mut().poll(context)
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    /// Over a connection on which nothing was said yet, and the turns of its task.
    pub fn over(io: IO) -> (Self, Turns) {
        let turns = Turns::default();
        let gathered = Gathered {
            io,
            held: Vec::new(),
            written: 0,
            state: State::Greeting,
            turns: turns.clone(),
        };
        (gathered, turns)
    }

    /// Holds as much as there is room for, which is made where there is none.
    fn hold(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.held.len() + length > MAX_HELD {
            ready!(self.write_out(context))?;
        }
        if self.held.capacity() == 0 {
            self.held = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        let before = self.held.len();
        for slice in slices {
            let room = MAX_HELD - self.held.len();
            self.held.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        Poll::Ready(Ok(self.held.len() - before))
    }

    /// Writes what is held.
    fn write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state != State::Greeting {
            self.state = State::Writing;
        }
        while self.written < self.held.len() {
            let rest = &self.held[self.written..];
            let count = ready!(Pin::new(&mut self.io).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.written = 0;
        give_back(&mut self.held);
        if self.state == State::Writing {
            self.state = State::Open;
        }
        Poll::Ready(Ok(()))
    }
}

/// Keeps a buffer for the next who needs one.
fn give_back(held: &mut Vec<u8>) {
    held.clear();
    if held.capacity() > 0 {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MAX_SPARE {
                spare.push(std::mem::take(held));
            }
        });
    }
    *held = Vec::new();
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.turns.0.reads.fetch_add(1, Ordering::Relaxed);
            if self.state == State::Greeting {
                self.state = State::Open;
            }
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.hold(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.hold(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Pin::new(&mut self.io).poll_flush(context);
        }
        let turn = self.turns.current();
        match self.state {
            State::Open => {
                self.state = State::Asked { turn };
                context.waker().wake_by_ref();
                Poll::Ready(Ok(()))
            }
            State::Asked { turn: asked } if asked == turn => Poll::Ready(Ok(())),
            State::Asked { .. } | State::Greeting | State::Writing => self.write_out(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_out(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<IO: AsyncWrite + Unpin> Drop for Gathered<IO> {
    /// What was to be flushed is still written, as far as that can be done at once.
    fn drop(&mut self) {
        if !self.held.is_empty() {
            let _ = self.write_out(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Takes so many bytes; says what it was given, call by call.
    #[derive(Default, Clone)]
    struct Recorder {
        room: Arc<Mutex<usize>>,
        writes: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl Recorder {
        fn with_room(room: usize) -> Self {
            let recorder = Recorder::default();
            *recorder.room.lock() = room;
            recorder
        }

        fn lengths(&self) -> Vec<usize> {
            self.writes.lock().iter().map(Vec::len).collect()
        }
    }

    impl AsyncRead for Recorder {
        fn poll_read(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buffer.put_slice(b"a greeting");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Recorder {
        fn poll_write(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let mut room = self.room.lock();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Poll::Pending;
            }
            *room -= count;
            self.writes.lock().push(bytes[..count].to_vec());
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn write(gathered: &mut Gathered<Recorder>, bytes: &[u8]) -> Poll<usize> {
        let written = Pin::new(gathered).poll_write(&mut context(), bytes);
        written.map(|written| written.expect("it is written"))
    }

    fn flush(gathered: &mut Gathered<Recorder>) -> Poll<()> {
        let flushed = Pin::new(gathered).poll_flush(&mut context());
        flushed.map(|flushed| flushed.expect("it is flushed"))
    }

    /// One whose peer has spoken.
    fn open(recorder: &Recorder) -> (Gathered<Recorder>, Turns) {
        let (mut gathered, turns) = Gathered::over(recorder.clone());
        let mut bytes = [0; 16];
        let read = Pin::new(&mut gathered).poll_read(&mut context(), &mut ReadBuf::new(&mut bytes));
        assert!(read.is_ready());
        (gathered, turns)
    }

    #[test]
    fn what_is_written_in_two_turns_leaves_in_one_call() {
        let recorder = Recorder::with_room(usize::MAX);
        let (mut gathered, turns) = open(&recorder);

        for bytes in [&b"head"[..], b"data"] {
            assert_eq!(write(&mut gathered, bytes), Poll::Ready(4));
            assert_eq!(flush(&mut gathered), Poll::Ready(()));
        }
        assert!(recorder.lengths().is_empty(), "it waits for the next turn");
        turns.begin();
        assert_eq!(write(&mut gathered, b"more"), Poll::Ready(4));
        assert_eq!(flush(&mut gathered), Poll::Ready(()));

        assert_eq!(*recorder.writes.lock(), [b"headdatamore"]);
    }

    #[test]
    fn a_greeting_is_written_at_once() {
        let recorder = Recorder::with_room(usize::MAX);
        let (mut gathered, _) = Gathered::over(recorder.clone());

        assert_eq!(write(&mut gathered, b"preface"), Poll::Ready(7));
        assert_eq!(flush(&mut gathered), Poll::Ready(()));

        assert_eq!(recorder.lengths(), [7]);
    }

    #[test]
    fn no_more_is_held_than_may_be() {
        let recorder = Recorder::with_room(usize::MAX);
        let (mut gathered, _) = open(&recorder);
        let frame = [0; 16 * 1024 + 9];

        for _ in 0..4 {
            assert_eq!(write(&mut gathered, &frame), Poll::Ready(frame.len()));
        }
        assert_eq!(recorder.lengths(), [3 * frame.len()]);
        let large = vec![0; 2 * MAX_HELD];
        assert_eq!(write(&mut gathered, &large), Poll::Ready(MAX_HELD));
        assert_eq!(recorder.lengths(), [3 * frame.len(), frame.len()]);
    }

    #[test]
    fn who_does_not_take_it_is_waited_for() {
        let recorder = Recorder::with_room(3);
        let (mut gathered, turns) = open(&recorder);
        assert_eq!(write(&mut gathered, b"headdata"), Poll::Ready(8));
        assert_eq!(flush(&mut gathered), Poll::Ready(()));
        turns.begin();

        assert_eq!(flush(&mut gathered), Poll::Pending);
        assert_eq!(write(&mut gathered, &[0; MAX_HELD]), Poll::Pending);
        *recorder.room.lock() = 100;
        // In the same turn: it has been asked for.
        assert_eq!(flush(&mut gathered), Poll::Ready(()));

        assert_eq!(recorder.lengths(), [3, 5]);
    }

    #[test]
    fn nothing_is_lost_with_its_end() {
        let recorder = Recorder::with_room(usize::MAX);
        let (mut gathered, _) = open(&recorder);
        assert_eq!(write(&mut gathered, b"goaway"), Poll::Ready(6));

        assert!(
            Pin::new(&mut gathered)
                .poll_shutdown(&mut context())
                .is_ready()
        );
        assert_eq!(recorder.lengths(), [6]);
        assert_eq!(write(&mut gathered, b"rst"), Poll::Ready(3));
        drop(gathered);

        assert_eq!(recorder.lengths(), [6, 3]);
    }
}
