//! A body whose bytes a codec changes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::codec::Codec;

/// A body on its way through a codec. One frame of it is worked on at a time.
pub(super) struct Recoded<B: Body, C> {
    inner: B,
    codec: C,
    waiting: Bytes,
    /// After the last of the codec's.
    last: Option<Frame<Bytes>>,
    state: State,
    to_error: fn(Arc<str>) -> B::Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Finishing,
    Ended,
}

impl<B: Body, C> Recoded<B, C> {
    pub(super) fn new(inner: B, codec: C, to_error: fn(Arc<str>) -> B::Error) -> Self {
        Recoded {
            inner,
            codec,
            waiting: Bytes::new(),
            last: None,
            state: State::Reading,
            to_error,
        }
    }
}

impl<B, C> Recoded<B, C>
where
    B: Body<Data = Bytes> + Unpin,
    C: Codec,
{
    fn fail(&mut self, error: &std::io::Error) -> B::Error {
        self.state = State::Ended;
        (self.to_error)(format!("a body cannot be recoded: {error}").into())
    }

    /// The next bytes of what waits, if something comes of it.
    fn changed(&mut self) -> Option<Result<Frame<Bytes>, B::Error>> {
        while !self.waiting.is_empty() {
            let mut rest = &self.waiting[..];
            let made = self.codec.change(&mut rest);
            let left = rest.len();
            self.waiting.advance(self.waiting.len() - left);
            match made {
                Ok(made) if made.is_empty() => {}
                Ok(made) => return Some(Ok(Frame::data(made.into()))),
                Err(error) => return Some(Err(self.fail(&error))),
            }
        }
        None
    }

    fn finished(&mut self) -> Option<Result<Frame<Bytes>, B::Error>> {
        if self.state == State::Finishing {
            self.state = State::Ended;
            match self.codec.finish() {
                Ok(made) if made.is_empty() => {}
                Ok(made) => return Some(Ok(Frame::data(made.into()))),
                Err(error) => return Some(Err(self.fail(&error))),
            }
        }
        self.last.take().map(Ok)
    }
}

impl<B, C> Body for Recoded<B, C>
where
    B: Body<Data = Bytes> + Unpin,
    C: Codec + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(changed) = this.changed() {
                return Poll::Ready(Some(changed));
            }
            if this.state != State::Reading {
                return Poll::Ready(this.finished());
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                None => this.state = State::Finishing,
                Some(Err(error)) => {
                    this.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.waiting = data,
                    Err(trailers) => {
                        this.last = Some(trailers);
                        this.state = State::Finishing;
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended && self.last.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
