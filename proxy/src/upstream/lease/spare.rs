//! A request once more, for the case that the peer closes the connection that it is sent on: one that was used before,
//! and that the peer may have thought nobody wanted any more.
//!
//! It is sent again where it may be sent twice (RFC 9110 §9.2.2), where the peer's system has taken nothing of it, or
//! where the peer says that it has not looked at it: a stream of HTTP/2 above the last one that a GOAWAY names
//! (RFC 9113 §6.8).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::Request;
use http_body::{Body, Frame};

use super::kept::HeadLines;
use super::{Connection, Lease, SendFailure};
use crate::upstream::body::RequestBody;
use crate::upstream::body::replay::ReplayBuffer;
use crate::upstream::io::Mark;

/// What a request would be made of again.
#[derive(Debug)]
pub struct Spare {
    /// `None`: the request has it still.
    head: Option<HeadLines>,
    body: SpareBody,
    condition: Condition,
}

/// Where a request may be sent once more.
#[derive(Debug)]
enum Condition {
    /// Anywhere: it may be processed twice.
    Repeatable,
    /// Where nothing has arrived of what was written since, on a connection of HTTP/1.1.
    Unacknowledged(Mark),
    /// Where the peer of HTTP/2 says that it was not processed.
    Unprocessed,
}

impl Condition {
    fn is_met(&self, failure: &SendFailure) -> bool {
        match self {
            Condition::Repeatable => failure.is_closed_early() || failure.is_unprocessed(),
            Condition::Unacknowledged(mark) => {
                failure.is_closed_early() && mark.has_nothing_arrived()
            }
            Condition::Unprocessed => failure.is_unprocessed(),
        }
    }
}

#[derive(Debug)]
enum SpareBody {
    /// None, or all of it.
    Whole(RequestBody),
    /// What has been read of it, kept for this alone.
    Own(Arc<ReplayBuffer>),
    /// The same, kept for other tries too.
    Shared(Arc<ReplayBuffer>),
}

/// So much is kept of a body: more than the few bytes that are read of it before a connection tells that it has ended.
const MAX_BODY: usize = 64 * 1024;

impl Lease {
    /// What the request would be made of again; `None` where the connection was not used before. A body that can be read
    /// once is changed to one that can be read again. Not asked for requests that would change the connection.
    pub fn spare(&self, request: &mut Request<RequestBody>) -> Option<Spare> {
        if !self.is_reused {
            return None;
        }
        let condition = match &self.connection {
            _ if request.method().is_idempotent() => Condition::Repeatable,
            Connection::Http1(connection) => Condition::Unacknowledged(connection.mark()?),
            Connection::Http2(_) => Condition::Unprocessed,
        };
        let body = match &self.connection {
            Connection::Http1(_) => SpareBody::of(request.body_mut())?,
            Connection::Http2(_) => SpareBody::ahead(request.body_mut())?,
        };
        let head = match &self.connection {
            Connection::Http1(_) => None,
            Connection::Http2(stream) if stream.carries_http1() => None,
            Connection::Http2(_) => Some(HeadLines::of(request)),
        };
        Some(Spare {
            head,
            body,
            condition,
        })
    }
}

impl SpareBody {
    /// Of a body that is read as far as it has come: most small ones are whole by then, and can be had again as they are.
    fn ahead(body: &mut RequestBody) -> Option<Self> {
        let RequestBody::Once { incoming, .. } = body else {
            return SpareBody::of(body);
        };
        let is_told = incoming.size_hint().exact().is_some();
        // Whoever sends it looks again.
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut context) else {
            return SpareBody::of(body);
        };
        let RequestBody::Once { incoming, meter } = std::mem::take(body) else {
            return None;
        };
        let is_whole = incoming.is_end_stream();
        *body = match frame.map(|frame| frame.map(Frame::into_data)) {
            None => RequestBody::Whole(None),
            Some(Ok(Ok(data))) if is_whole && is_told => RequestBody::Full(Some(data)),
            Some(Ok(Ok(data))) if is_whole => RequestBody::Whole(Some(data)),
            Some(Ok(Ok(data))) if data.len() > MAX_BODY => RequestBody::Begun {
                first: Some(data),
                rest: Box::new(RequestBody::Once { incoming, meter }),
            },
            Some(Ok(frame)) => {
                let frame = frame.map_or_else(|frame| frame, Frame::data);
                let buffer = ReplayBuffer::begun((incoming, meter), &frame, MAX_BODY);
                *body = buffer.replay()?;
                return Some(SpareBody::Own(buffer));
            }
            Some(Err(error)) => RequestBody::Failed(Some(error)),
        };
        SpareBody::of(body)
    }

    fn of(body: &mut RequestBody) -> Option<Self> {
        match body {
            RequestBody::Empty => Some(SpareBody::Whole(RequestBody::Empty)),
            RequestBody::Full(bytes) => Some(SpareBody::Whole(RequestBody::Full(bytes.clone()))),
            RequestBody::Whole(bytes) => Some(SpareBody::Whole(RequestBody::Whole(bytes.clone()))),
            RequestBody::Replayed(replay) => Some(SpareBody::Shared(Arc::clone(replay.buffer()))),
            RequestBody::Copy(_) | RequestBody::Begun { .. } | RequestBody::Failed(_) => None,
            RequestBody::Once { .. } => {
                let RequestBody::Once { incoming, meter } = std::mem::take(body) else {
                    return None;
                };
                let buffer = ReplayBuffer::new(incoming, meter, MAX_BODY);
                *body = buffer.replay()?;
                Some(SpareBody::Own(buffer))
            }
        }
    }
}

impl Spare {
    /// Makes the request what it was, after it failed so; says whether that can be: not where the peer may have processed
    /// what must not be processed twice, nor where its body is not all here any more.
    pub fn restore(self, request: &mut Request<RequestBody>, failure: &SendFailure) -> bool {
        if !self.condition.is_met(failure) {
            return false;
        }
        let body = match self.body {
            SpareBody::Whole(body) => Some(body),
            SpareBody::Own(buffer) | SpareBody::Shared(buffer) => buffer.replay(),
        };
        let Some(body) = body else {
            return false;
        };
        if let Some(head) = self.head {
            let Some(head) = head.again() else {
                return false;
            };
            *request = head;
        }
        // Else nothing of a response has come.
        *request.body_mut() = body;
        true
    }

    /// There is a response: it is not needed.
    pub fn spared(self) {
        if let SpareBody::Own(buffer) = self.body {
            buffer.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::upstream::body::BodyError;
    use crate::upstream::body::client::ClientBody;

    fn once(incoming: ClientBody) -> RequestBody {
        RequestBody::Once {
            incoming,
            meter: Arc::default(),
        }
    }

    /// Of these pieces, of which nobody says how many there are.
    fn of_pieces(pieces: Vec<Result<Bytes, BodyError>>) -> RequestBody {
        let frames = stream::iter(pieces).map(|piece| piece.map(Frame::data));
        once(ClientBody::Filtered(Box::pin(StreamBody::new(frames))))
    }

    async fn all(body: RequestBody) -> Result<Bytes, BodyError> {
        body.collect().await.map(|body| body.to_bytes())
    }

    fn again(spare: SpareBody) -> RequestBody {
        match spare {
            SpareBody::Whole(body) => body,
            SpareBody::Own(buffer) | SpareBody::Shared(buffer) => buffer.replay().expect("a body"),
        }
    }

    #[tokio::test]
    async fn a_body_that_has_come_is_kept_as_it_is() {
        let mut body = once(ClientBody::Whole(Bytes::from_static(b"abc")));

        let spare = SpareBody::ahead(&mut body).expect("it is kept");

        assert!(matches!(body, RequestBody::Full(_)));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(all(body).await.expect("a body"), "abc");
        assert_eq!(all(again(spare)).await.expect("a body"), "abc");
    }

    #[tokio::test]
    async fn nobody_says_how_long_a_body_is_that_has_not_said() {
        let mut body = of_pieces(vec![]);

        let spare = SpareBody::ahead(&mut body).expect("it is kept");

        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), None);
        assert_eq!(all(again(spare)).await.expect("a body"), "");
    }

    #[tokio::test]
    async fn a_body_of_which_more_will_come_is_read_once_and_kept() {
        let mut body = of_pieces(vec![Ok("ab".into()), Ok("c".into())]);

        let spare = SpareBody::ahead(&mut body).expect("it is kept");

        assert_eq!(all(body).await.expect("a body"), "abc");
        assert_eq!(all(again(spare)).await.expect("a body"), "abc");
    }

    #[tokio::test]
    async fn a_body_that_begins_with_too_much_is_sent_and_not_kept() {
        let mut body = of_pieces(vec![Ok(vec![b'a'; MAX_BODY + 1].into()), Ok("c".into())]);

        assert!(SpareBody::ahead(&mut body).is_none());

        assert_eq!(all(body).await.expect("a body").len(), MAX_BODY + 2);
    }

    #[tokio::test]
    async fn a_body_that_fails_at_once_fails_whoever_sends_it() {
        let mut body = of_pieces(vec![Err(BodyError::NotWhole)]);

        assert!(SpareBody::ahead(&mut body).is_none());

        assert!(matches!(all(body).await, Err(BodyError::NotWhole)));
    }
}
