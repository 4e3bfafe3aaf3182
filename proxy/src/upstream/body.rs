//! Request bodies on their way upstream: counted, and kept for another try while they are small.
//!
//! A body that may be needed again is shared between the tries: what one try has read is kept, up to a bound,
//! for the next. Once the bound is passed nothing is kept any more, and there is no other try.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

/// No more of a body is kept for another try.
pub const MAX_REPLAYED: usize = 64 * 1024;

/// What a request body has come to; shared with whoever reports about it.
#[derive(Debug, Default)]
pub struct BodyMeter {
    bytes: AtomicU64,
    has_ended: AtomicBool,
}

impl BodyMeter {
    /// Bytes taken from the client.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether all of it has been taken.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    fn count(&self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }
}

/// A request body of one try.
#[derive(Debug)]
pub enum RequestBody {
    /// None.
    Empty,
    /// Given whole.
    Full(Option<Bytes>),
    /// Read once.
    Once {
        /// From the client.
        incoming: Incoming,
        /// What it comes to.
        meter: Arc<BodyMeter>,
    },
    /// Read again where it must be.
    Replayed {
        /// What the tries share.
        shared: Arc<ReplayBuffer>,
        /// How much of what is kept this try has read.
        position: usize,
        /// Which try this is; another one may have taken over.
        turn: u64,
    },
}

/// A body that several tries may read.
#[derive(Debug)]
pub struct ReplayBuffer {
    meter: Arc<BodyMeter>,
    state: Mutex<ReplayState>,
}

#[derive(Debug)]
struct ReplayState {
    incoming: Incoming,
    kept: BytesMut,
    trailers: Option<HeaderMap>,
    has_ended: bool,
    is_too_large: bool,
    turn: u64,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client's connection.
    #[error("reading the request body")]
    Downstream(#[source] hyper::Error),
    /// Another try reads it now.
    #[error("the request is being tried elsewhere")]
    TakenOver,
}

impl ReplayBuffer {
    /// Over a body from the client.
    pub fn new(incoming: Incoming, meter: Arc<BodyMeter>) -> Arc<Self> {
        Arc::new(ReplayBuffer {
            meter,
            state: Mutex::new(ReplayState {
                incoming,
                kept: BytesMut::new(),
                trailers: None,
                has_ended: false,
                is_too_large: false,
                turn: 0,
            }),
        })
    }

    /// The body from its beginning, for one more try; `None` where it is no longer all here. The body of the
    /// try before ends.
    pub fn replay(self: &Arc<Self>) -> Option<RequestBody> {
        let mut state = self.state.lock();
        if state.is_too_large {
            return None;
        }
        state.turn += 1;
        Some(RequestBody::Replayed {
            shared: Arc::clone(self),
            position: 0,
            turn: state.turn,
        })
    }
}

impl ReplayState {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        meter: &BodyMeter,
        position: &mut usize,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if *position < self.kept.len() {
            let rest = Bytes::copy_from_slice(&self.kept[*position..]);
            *position = self.kept.len();
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if self.has_ended {
            let trailers = self
                .trailers
                .clone()
                .filter(|_| *position == self.kept.len());
            *position = usize::MAX;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            meter.count(frame);
            self.keep(frame, position);
        }
        let has_failed = matches!(frame, Some(Err(_)));
        if frame.is_none() || (!has_failed && self.incoming.is_end_stream()) {
            self.has_ended = true;
            meter.end();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Downstream)))
    }

    fn keep(&mut self, frame: &Frame<Bytes>, position: &mut usize) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            *position = usize::MAX;
        }
        let Some(data) = frame.data_ref() else {
            return;
        };
        if self.is_too_large || self.kept.len() + data.len() > MAX_REPLAYED {
            self.is_too_large = true;
            self.kept = BytesMut::new();
            *position = 0;
            return;
        }
        self.kept.extend_from_slice(data);
        *position = self.kept.len();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Full(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            RequestBody::Once { incoming, meter } => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(context));
                if let Some(Ok(frame)) = &frame {
                    meter.count(frame);
                }
                if frame.is_none() || incoming.is_end_stream() {
                    meter.end();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Downstream)))
            }
            RequestBody::Replayed {
                shared,
                position,
                turn,
            } => {
                let mut state = shared.state.lock();
                if state.turn != *turn {
                    return Poll::Ready(Some(Err(BodyError::TakenOver)));
                }
                state.poll(context, &shared.meter, position)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Full(bytes) => bytes.is_none(),
            RequestBody::Once { incoming, .. } => incoming.is_end_stream(),
            RequestBody::Replayed {
                shared, position, ..
            } => {
                let state = shared.state.lock();
                let has_read_all = *position == usize::MAX
                    || (*position == state.kept.len() && state.trailers.is_none());
                state.has_ended && (has_read_all || state.is_too_large)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            RequestBody::Once { incoming, .. } => incoming.size_hint(),
            RequestBody::Replayed {
                shared, position, ..
            } => {
                let state = shared.state.lock();
                let kept = state.kept.len().saturating_sub(*position) as u64;
                match state.incoming.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(rest + kept),
                    None => SizeHint::default(),
                }
            }
        }
    }
}
