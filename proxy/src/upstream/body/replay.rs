//! A body that several tries may read: what one has read is kept, up to a bound, for the next.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::client::ClientBody;
use super::meter::BodyMeter;
use super::{BodyError, RequestBody, is_last};

/// A body that several tries may read: one at a time as long as it comes in, at once when all of it is here.
#[derive(Debug)]
pub struct ReplayBuffer {
    meter: Arc<BodyMeter>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    incoming: ClientBody,
    kept: BytesMut,
    trailers: Option<HeaderMap>,
    has_ended: bool,
    max_kept: usize,
    is_too_large: bool,
    /// Which try reads it.
    turn: u64,
}

/// One try's reading of a [`ReplayBuffer`].
#[derive(Debug)]
pub struct Replay {
    buffer: Arc<ReplayBuffer>,
    turn: u64,
    /// How much of what is kept this try has read.
    position: usize,
    has_read_trailers: bool,
}

impl ReplayBuffer {
    /// Over a body from the client, of which so many bytes are kept.
    pub fn new(incoming: ClientBody, meter: Arc<BodyMeter>, max_kept: usize) -> Arc<Self> {
        Arc::new(ReplayBuffer {
            meter,
            state: Mutex::new(State {
                incoming,
                kept: BytesMut::new(),
                trailers: None,
                has_ended: false,
                max_kept,
                is_too_large: false,
                turn: 0,
            }),
        })
    }

    /// The same, of which a frame has been read already.
    pub fn begun(
        (incoming, meter): (ClientBody, Arc<BodyMeter>),
        frame: &Frame<Bytes>,
        max_kept: usize,
    ) -> Arc<Self> {
        let has_ended = frame.is_trailers() || incoming.is_end_stream();
        let buffer = ReplayBuffer::new(incoming, meter, max_kept);
        {
            let mut state = buffer.state.lock();
            state.keep(frame);
            state.has_ended = has_ended;
        }
        buffer
    }

    /// The body from its beginning, for one more try; `None` where it is no longer all here. The body of the
    /// try before ends with an error.
    pub fn replay(self: &Arc<Self>) -> Option<RequestBody> {
        let mut state = self.state.lock();
        if state.is_too_large {
            return None;
        }
        state.turn += 1;
        Some(RequestBody::Replayed(Replay {
            buffer: Arc::clone(self),
            turn: state.turn,
            position: 0,
            has_read_trailers: false,
        }))
    }
}

impl ReplayBuffer {
    /// No other try will read it: nothing more is kept, and what was is given up.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        state.is_too_large = true;
        state.kept = BytesMut::new();
    }
}

impl State {
    /// Keeps a frame for the next try, or nothing any more.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(data) = frame.data_ref() else { return };
        if self.is_too_large || self.kept.len() + data.len() > self.max_kept {
            self.is_too_large = true;
            self.kept = BytesMut::new();
        } else {
            self.kept.extend_from_slice(data);
        }
    }
}

impl Replay {
    /// What is read.
    pub fn buffer(&self) -> &Arc<ReplayBuffer> {
        &self.buffer
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.buffer.state.lock();
        let is_shared = state.has_ended && !state.is_too_large;
        if state.turn != self.turn && !is_shared {
            return Poll::Ready(Some(Err(BodyError::TakenOver)));
        }
        if self.position < state.kept.len() {
            let rest = Bytes::copy_from_slice(&state.kept[self.position..]);
            self.position = state.kept.len();
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if state.has_ended {
            let trailers = state.trailers.clone().filter(|_| !self.has_read_trailers);
            self.has_read_trailers = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut state.incoming).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.buffer.meter.count(frame);
                state.keep(frame);
                self.position = state.kept.len();
                self.has_read_trailers |= frame.is_trailers();
            }
            Some(Err(error)) => self.buffer.meter.fail(error),
            None => {}
        }
        if is_last(frame.as_ref(), &state.incoming) {
            state.has_ended = true;
            self.buffer.meter.end();
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.buffer.state.lock();
        let has_read_data = self.position >= state.kept.len();
        let has_read_trailers = self.has_read_trailers || state.trailers.is_none();
        state.has_ended && has_read_data && has_read_trailers
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.buffer.state.lock();
        let kept = state.kept.len().saturating_sub(self.position) as u64;
        match state.incoming.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + kept),
            None => SizeHint::default(),
        }
    }
}
