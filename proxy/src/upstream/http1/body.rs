//! The body of a response of HTTP/1.1, read from its connection as it is asked for.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::error::Http1Error;
use super::line::{Line, SharedLine};
use crate::http1::decoder::{Decoded, Decoder};
use crate::upstream::io::UpstreamIo;

/// Where a body comes from. Nothing is read before it is asked for; one that is dropped before its end leaves a
/// connection that carries no other request.
#[derive(Debug, Default)]
pub struct Http1Body(State);

#[derive(Debug, Default)]
enum State {
    /// There is none, or no more.
    #[default]
    Over,
    /// It came with its head.
    Whole(Bytes),
    /// It is still to come.
    Coming { line: SharedLine, decoder: Decoder },
    /// What comes is no HTTP.
    Switched(SharedLine),
    /// It has no end.
    Failed,
}

impl Http1Body {
    /// One that was read already, or none.
    pub(super) fn whole(bytes: Bytes) -> Self {
        match bytes.is_empty() {
            true => Http1Body(State::Over),
            false => Http1Body(State::Whole(bytes)),
        }
    }

    /// One that is to come.
    pub(super) fn coming(line: SharedLine, decoder: Decoder) -> Self {
        Http1Body(State::Coming { line, decoder })
    }

    /// Another protocol.
    pub(super) fn switched(line: SharedLine) -> Self {
        Http1Body(State::Switched(line))
    }

    /// The connection, where it is that of another protocol now, and what has come of it.
    pub(in crate::upstream) async fn into_connection(
        self,
    ) -> Result<(UpstreamIo, Bytes), Http1Error> {
        let State::Switched(line) = self.0 else {
            return Err(Http1Error::Taken);
        };
        poll_fn(|context| line.lock().poll_taken(context)).await
    }
}

/// What comes next; at the end the connection is told.
fn poll_next(
    line: &mut Line,
    decoder: &mut Decoder,
    context: &mut Context<'_>,
) -> Poll<Result<Option<Frame<Bytes>>, Http1Error>> {
    loop {
        match decoder.decode(&mut line.reading.unread)? {
            Decoded::Data(data) => {
                if decoder.is_over() {
                    line.end_reading();
                }
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
            Decoded::End(trailers) => {
                line.end_reading();
                return Poll::Ready(Ok(trailers.map(Frame::trailers)));
            }
            Decoded::More => {}
        }
        if ready!(line.poll_more(context, decoder.remaining()))? == 0 {
            if !decoder.ends_with_connection() {
                return Poll::Ready(Err(Http1Error::CutOff));
            }
            line.wear_out();
            line.end_reading();
            return Poll::Ready(Ok(None));
        }
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = Http1Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1Error>>> {
        let state = &mut self.get_mut().0;
        let (line, decoder) = match state {
            State::Coming { line, decoder } => (line, decoder),
            State::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *state = State::Over;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            State::Over | State::Switched(_) | State::Failed => return Poll::Ready(None),
        };
        let next = ready!(poll_next(&mut line.lock(), decoder, context));
        match &next {
            Ok(Some(frame)) if frame.is_data() && !decoder.is_over() => {}
            Ok(_) => *state = State::Over,
            Err(_) => *state = State::Failed,
        }
        Poll::Ready(next.transpose())
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, State::Over | State::Switched(_))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            State::Over | State::Switched(_) => SizeHint::with_exact(0),
            State::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            State::Coming { decoder, .. } => match decoder.remaining() {
                Some(remaining) => SizeHint::with_exact(remaining),
                None => SizeHint::default(),
            },
            State::Failed => SizeHint::default(),
        }
    }
}
