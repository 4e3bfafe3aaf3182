//! The body of a response on its way to the client; what is held for the request goes with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::alarm::{self, Alarm};
use super::completion::Completion;
use super::failure::Reset;
use crate::clock;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::error::ExchangeError;
use crate::upstream::explain;
use crate::upstream::response::UpstreamBody;

/// Where the bytes come from.
#[derive(Default)]
pub(super) enum Source {
    /// Nowhere.
    #[default]
    Empty,
    /// From here.
    Full(Option<Bytes>),
    /// From upstream.
    Upstream(UpstreamBody),
    /// From a filter that changes what comes from elsewhere.
    Filtered(Pin<Box<dyn Body<Data = Bytes, Error = SourceError> + Send>>),
}

/// Why a source has ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The upstream did not go on.
    #[error("reading the response from upstream")]
    Upstream(#[source] ExchangeError),
    /// The tunnel is broken that it comes from.
    #[error("a tunnel in the place of an exchange")]
    Tunnel(#[source] std::io::Error),
    /// A filter cannot go on with it.
    #[error("{0}")]
    Filter(Arc<str>),
}

/// The body of a response.
pub(super) struct ResponseBody {
    source: Source,
    completion: Completion,
    watch: Watch,
    /// When the watch looks next.
    alarm: Alarm,
    /// Where silence is limited.
    last_frame: Option<Instant>,
    /// Whether the response has no body by its status, whatever its source says.
    has_no_body: bool,
    /// Why it ends, told with the next look: what came before is on its way by then.
    failed: Option<ResponseError>,
}

/// What a body may take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watch {
    /// The body must have ended by then.
    pub(super) deadline: Option<Instant>,
    /// How long it may be silent.
    pub(super) idle: Option<Duration>,
    /// The whole stream must have ended by then.
    pub(super) stream_deadline: Option<Instant>,
}

impl Watch {
    /// The limit that comes first, and when. `last_frame`: when the body was last heard of.
    fn first_due(&self, last_frame: Option<Instant>) -> Option<(Instant, ResponseError)> {
        let idle = self.idle.and_then(|idle| last_frame?.checked_add(idle));
        let stream = self.stream_deadline;
        alarm::first([
            self.deadline.map(|due| (due, ResponseError::Timeout)),
            idle.map(|due| (due, ResponseError::Idle)),
            stream.map(|due| (due, ResponseError::Duration)),
        ])
    }
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResponseError {
    /// Its source did not go on.
    #[error(transparent)]
    Source(SourceError),
    /// The route's time-out was over.
    #[error("the response took longer than the route's time-out")]
    Timeout,
    /// The whole stream took too long.
    #[error("the stream took longer than streams may")]
    Duration,
    /// It was silent for too long.
    #[error("the response paused for longer than the idle time-out")]
    Idle,
}

impl ResponseBody {
    pub(super) fn new(source: Source, completion: Completion, watch: Watch) -> Self {
        ResponseBody {
            source,
            completion,
            watch,
            alarm: Alarm::default(),
            last_frame: watch.idle.map(|_| clock::now()),
            has_no_body: false,
            failed: None,
        }
    }

    /// One that is not read, as its status leaves it out.
    pub(super) fn left_out(mut self, is_left_out: bool) -> Self {
        self.has_no_body = is_left_out;
        self
    }

    /// Called while nothing comes: whether it has taken too long.
    fn poll_watch(&mut self, context: &mut Context<'_>) -> Poll<ResponseError> {
        let (watch, last_frame) = (self.watch, self.last_frame);
        let error = ready!(self.alarm.poll(context, || watch.first_due(last_frame)));
        let flag = match error {
            ResponseError::Idle => ResponseFlags::STREAM_IDLE_TIMEOUT,
            // Envoy has none for it.
            ResponseError::Duration => ResponseFlags::default(),
            _ => ResponseFlags::UPSTREAM_TIMEOUT,
        };
        self.completion.fail(flag, error.to_string().into());
        Poll::Ready(error)
    }

    fn fail(&mut self, error: SourceError) -> ResponseError {
        let SourceError::Upstream(error) = error else {
            let reason = error.to_string().into();
            self.completion.fail(ResponseFlags::LOCAL_RESET, reason);
            return ResponseError::Source(error);
        };
        let flag = match Reset::of(&error, false) {
            Reset::Protocol => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
            Reset::Stream | Reset::Refused => ResponseFlags::UPSTREAM_REMOTE_RESET,
            Reset::Connection | Reset::BeforeRequest => ResponseFlags::UPSTREAM_TERMINATION,
        };
        self.completion.fail(
            flag,
            format!("the response ended early: {}", explain(&error)).into(),
        );
        ResponseError::Source(SourceError::Upstream(error))
    }
}

impl Source {
    /// Puts something between what is there and the client.
    pub(super) fn filtered<B>(&mut self, wrap: impl FnOnce(Source) -> B)
    where
        B: Body<Data = Bytes, Error = SourceError> + Send + 'static,
    {
        let inner = std::mem::take(self);
        *self = Source::Filtered(Box::pin(wrap(inner)));
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        match self.get_mut() {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upstream(incoming) => Pin::new(incoming)
                .poll_frame(context)
                .map_err(SourceError::Upstream),
            Source::Filtered(body) => body.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_none(),
            Source::Upstream(incoming) => incoming.is_end_stream(),
            Source::Filtered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Upstream(incoming) => incoming.size_hint(),
            Source::Filtered(body) => body.size_hint(),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let this = self.get_mut();
        if let Some(failed) = this.failed.take() {
            return Poll::Ready(Some(Err(failed)));
        }
        // In HTTP/2 there may be frames all the same: nobody else leaves them out.
        if this.has_no_body {
            this.completion.end();
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut this.source).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                return this.poll_watch(context).map(|error| Some(Err(error)));
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                if this.watch.idle.is_some() {
                    this.last_frame = Some(clock::now());
                }
                if let Some(data) = frame.data_ref() {
                    this.completion.sent(data.len());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.completion.trailers(trailers);
                }
                // Nothing follows trailers: whoever gets them looks no further.
                if frame.is_trailers() || this.source.is_end_stream() {
                    this.completion.end();
                }
            }
            None => this.completion.end(),
            Some(Err(_)) => {}
        }
        match frame {
            Some(Err(error)) => {
                // A reset of HTTP/2 drops what was not written yet.
                this.failed = Some(this.fail(error));
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_no_body || self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.has_no_body {
            true => SizeHint::with_exact(0),
            false => self.source.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A body without bytes is never polled, and one of our own may not be (HEAD): both have ended well.
        let is_own = matches!(self.source, Source::Full(_));
        if self.source.is_end_stream() || self.has_no_body || is_own {
            self.completion.end();
        }
    }
}
