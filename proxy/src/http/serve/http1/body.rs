//! The body of a request of HTTP/1.1, read from its connection as it is asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Client;
use super::line::{Line, SharedLine};
use crate::http1::chunked::Chunked;
use crate::http1::decoder::{Decoded, Decoder};
use crate::http1::head::HeadLimits;
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::{BodyError, ClientError};

/// A body that is still to come. Nothing is read before it is asked for; of one that is dropped before its end what has
/// come is passed over, and if that is not all, its connection carries no other request.
pub(super) struct Http1Body<IO: Client> {
    line: SharedLine<IO>,
    decoder: Decoder,
    is_over: bool,
}

impl<IO: Client> Http1Body<IO> {
    /// So many bytes.
    pub(super) fn of_length(line: &SharedLine<IO>, length: u64) -> ClientBody {
        Self::coming(line, Decoder::Length(length))
    }

    /// In chunks.
    pub(super) fn chunked(line: &SharedLine<IO>, limits: HeadLimits) -> ClientBody {
        Self::coming(line, Decoder::Chunked(Box::new(Chunked::new(limits))))
    }

    fn coming(line: &SharedLine<IO>, decoder: Decoder) -> ClientBody {
        ClientBody::Http1(Box::pin(Http1Body {
            line: Arc::clone(line),
            decoder,
            is_over: false,
        }))
    }
}

/// What comes next; at the end the connection is told.
fn poll_next<IO: Client>(
    line: &mut Line<IO>,
    decoder: &mut Decoder,
    context: &mut Context<'_>,
) -> Poll<Result<Option<Frame<Bytes>>, ClientError>> {
    ready!(line.poll_ask(context))?;
    loop {
        match decoder.decode(&mut line.reading.unread)? {
            Decoded::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
            Decoded::End(trailers) => return Poll::Ready(Ok(trailers.map(Frame::trailers))),
            Decoded::More => {}
        }
        if ready!(line.poll_more(context, decoder.remaining()))? == 0 {
            return Poll::Ready(Err(ClientError::CutOff));
        }
    }
}

impl<IO: Client> Body for Http1Body<IO> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let mut line = this.line.lock();
        let next = ready!(poll_next(&mut line, &mut this.decoder, context));
        match &next {
            Ok(Some(frame)) if frame.is_data() && !this.decoder.is_over() => {}
            Ok(_) => {
                this.is_over = true;
                line.end_request(context.waker());
            }
            Err(_) => {
                this.is_over = true;
                line.end_early();
            }
        }
        Poll::Ready(next.map_err(BodyError::Downstream).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.is_over && self.decoder.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder.remaining() {
            Some(remaining) => SizeHint::with_exact(remaining),
            None => SizeHint::default(),
        }
    }
}

impl<IO: Client> Drop for Http1Body<IO> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut line = self.line.lock();
        match is_here(&mut line, &mut self.decoder) {
            true => line.end_request(Waker::noop()),
            false => line.end_early(),
        }
    }
}

/// Passes over what has come of a body; whether that is all.
fn is_here<IO: Client>(line: &mut Line<IO>, decoder: &mut Decoder) -> bool {
    let mut has_read = false;
    loop {
        match decoder.decode(&mut line.reading.unread) {
            Ok(Decoded::Data(_)) if !decoder.is_over() => {}
            Ok(Decoded::Data(_) | Decoded::End(_)) => return true,
            Ok(Decoded::More) if !has_read => {
                // Nobody is woken: who has the connection looks again.
                let mut context = Context::from_waker(Waker::noop());
                let read = line.poll_more(&mut context, Some(0));
                if !matches!(read, Poll::Ready(Ok(1..))) {
                    return false;
                }
                has_read = true;
            }
            Ok(Decoded::More) | Err(_) => return false,
        }
    }
}
