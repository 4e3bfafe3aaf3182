//! Writes of an HTTP/2 connection, gathered over one turn of its task.
//!
//! The library writes a head, and each frame of data, by a call of its own. What comes together leaves together here: at
//! the end of a turn, which is a poll of the connection by its task, and is told by [`Turns`].

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose writes are gathered.
#[derive(Debug)]
pub struct Gathered<IO: AsyncWrite + Unpin>(Arc<Mutex<Connection<IO>>>);

/// What its task and the library share.
#[derive(Debug)]
struct Connection<IO: AsyncWrite + Unpin> {
    io: IO,
    held: Vec<u8>,
    /// How much of it was written.
    written: usize,
    state: State,
    /// How often something was read.
    reads: u32,
    /// Why nothing more can be written; told with the next write.
    failed: Option<io::Error>,
}

/// When what is held is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// When it is asked for: the peer has said nothing yet, and nobody may have turns.
    Greeting,
    /// At the end of the turn.
    Open,
    /// Now: the socket did not take all.
    Writing,
}

/// The turns of a connection's task.
#[derive(Clone)]
pub struct Turns(Weak<dyn Turning>);

trait Turning: Send + Sync {
    fn end(&self, context: &mut Context<'_>);

    fn reads(&self) -> u32;
}

/// A connection that its task polls turn by turn.
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
    /// Those of the connection that is made of the gathered writes.
    pub fn of<C>(self, connection: C) -> InTurns<C> {
        InTurns {
            connection: Box::pin(connection),
            turns: self,
        }
    }

    /// The connection was polled, and is not over: writes what is held.
    pub fn end(&self, context: &mut Context<'_>) {
        if let Some(connection) = self.0.upgrade() {
            connection.end(context);
        }
    }

    /// How often something has been read. Who sees another number has heard from the peer.
    pub fn reads(&self) -> u32 {
        self.0.upgrade().map_or(0, |connection| connection.reads())
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl<IO: AsyncWrite + Unpin + Send> Turning for Mutex<Connection<IO>> {
    fn end(&self, context: &mut Context<'_>) {
        let mut connection = self.lock();
        // Where the socket did not take all, its task is woken when it does.
        if connection.held.is_empty() || connection.state == State::Writing {
            return;
        }
        if let Poll::Ready(Err(error)) = connection.write_out(context) {
            connection.failed = Some(error);
            context.waker().wake_by_ref();
        }
    }

    fn reads(&self) -> u32 {
        self.lock().reads
    }
}

impl<C: Future> Future for InTurns<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let polled = self.connection.as_mut().poll(context);
        if polled.is_pending() {
            self.turns.end(context);
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin + Send + 'static> Gathered<IO> {
    /// Over a connection on which nothing was said yet, and the turns of its task.
    pub fn over(io: IO) -> (Self, Turns) {
        let connection = Arc::new(Mutex::new(Connection {
            io,
            held: Vec::new(),
            written: 0,
            state: State::Greeting,
            reads: 0,
            failed: None,
        }));
        let turning: Weak<Mutex<Connection<IO>>> = Arc::downgrade(&connection);
        (Gathered(connection), Turns(turning))
    }
}

impl<IO: AsyncWrite + Unpin> Connection<IO> {
    /// Holds as much as there is room for, which is made where there is none.
    fn hold(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(failed) = self.failed.take() {
            return Poll::Ready(Err(failed));
        }
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

    /// Leaves what is held to the end of the turn, but for what cannot wait for it.
    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(failed) = self.failed.take() {
            return Poll::Ready(Err(failed));
        }
        if self.held.is_empty() {
            return Pin::new(&mut self.io).poll_flush(context);
        }
        match self.state {
            State::Open => Poll::Ready(Ok(())),
            State::Greeting | State::Writing => self.write_out(context),
        }
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
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut connection = self.0.lock();
        let before = buffer.filled().len();
        let read = Pin::new(&mut connection.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            connection.reads = connection.reads.wrapping_add(1);
            if connection.state == State::Greeting {
                connection.state = State::Open;
            }
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().hold(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().hold(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut connection = self.0.lock();
        ready!(connection.write_out(context))?;
        Pin::new(&mut connection.io).poll_shutdown(context)
    }
}

impl<IO: AsyncWrite + Unpin> Drop for Connection<IO> {
    /// What was to be flushed is still written, as far as that can be done at once.
    fn drop(&mut self) {
        if !self.held.is_empty() {
            let _ = self.write_out(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn what_is_written_in_a_turn_leaves_in_one_call() {
        let recorder = Recorder::with_room(usize::MAX);
        let (mut gathered, turns) = open(&recorder);

        for bytes in [&b"head"[..], b"data", b"more"] {
            assert_eq!(write(&mut gathered, bytes), Poll::Ready(4));
            assert_eq!(flush(&mut gathered), Poll::Ready(()));
        }
        assert!(recorder.lengths().is_empty(), "it waits for the end");
        turns.end(&mut context());

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
        turns.end(&mut context());

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
