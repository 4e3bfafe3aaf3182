//! A body out of a stream of HTTP/2.
//!
//! What is read makes room for more. Whoever drops it before its end resets the stream, unless something else is still
//! sent on it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};

/// What comes on a stream after its head.
#[derive(Debug)]
pub struct Receiving {
    stream: RecvStream,
    /// How much is still to come, where the head says.
    length: Option<u64>,
    state: State,
    /// What was read and does not make room yet.
    unreleased: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    /// Nothing.
    Ended,
}

/// No more is read without making room: a frame as peers send them.
const MAX_UNRELEASED: usize = 16 * 1024;

impl Receiving {
    /// The body whose length the head tells, where it does.
    pub fn new(stream: RecvStream, length: Option<u64>) -> Self {
        let (length, state) = match stream.is_end_stream() {
            true => (length.or(Some(0)), State::Ended),
            false => (length, State::Data),
        };
        Receiving {
            stream,
            length,
            state,
            unreleased: 0,
        }
    }

    /// The stream itself.
    pub fn into_stream(self) -> RecvStream {
        self.stream
    }

    fn release(&mut self) {
        if self.unreleased > 0 {
            // A stream that is over makes no room, and needs none.
            let _ = self.stream.flow_control().release_capacity(self.unreleased);
            self.unreleased = 0;
        }
    }

    fn count(&mut self, data: &Bytes) {
        if let Some(length) = &mut self.length {
            *length = length.saturating_sub(data.len() as u64);
        }
        self.unreleased += data.len();
        if self.stream.is_end_stream() {
            // The library gives back what the connection has lent.
            self.state = State::Ended;
        } else if self.unreleased >= MAX_UNRELEASED {
            self.release();
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let polled = self.stream.poll_data(context);
        if polled.is_pending() {
            // Small pieces make room together, at the latest before more is waited for.
            self.release();
        }
        let data = ready!(polled);
        if let Some(Ok(data)) = &data {
            self.count(data);
        }
        Poll::Ready(data)
    }

    /// What is told of a failure: who has heard enough says so without one (RFC 9113 §8.1).
    fn fail<T>(&mut self, error: h2::Error) -> Option<Result<T, h2::Error>> {
        self.state = State::Ended;
        (error.reason() != Some(Reason::NO_ERROR)).then_some(Err(error))
    }
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if this.state == State::Data {
            match ready!(this.poll_data(context)) {
                Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Err(error)) => return Poll::Ready(this.fail(error)),
                None => this.state = State::Trailers,
            }
        }
        if this.state == State::Ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(this.stream.poll_trailers(context));
        this.state = State::Ended;
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => this.fail(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
