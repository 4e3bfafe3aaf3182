//! A request once more, for the case that the peer closes the connection that it is sent on: one that was used before,
//! and that the peer may have thought nobody wanted any more.
//!
//! It is sent again where it may be sent twice (RFC 9110 §9.2.2), where the peer's system has taken nothing of it, or
//! where the peer says that it has not looked at it: a stream of HTTP/2 above the last one that a GOAWAY names
//! (RFC 9113 §6.8).

use std::sync::Arc;

use http::Request;
use http::header::UPGRADE;

use super::{Connection, Lease, SendFailure};
use crate::present;
use crate::upstream::body::RequestBody;
use crate::upstream::body::replay::ReplayBuffer;
use crate::upstream::io::Mark;

/// What a request would be made of again.
#[derive(Debug)]
pub struct Spare {
    /// `None`: the request has it still.
    head: Option<Request<()>>,
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
    /// What the request would be made of again; `None` where the connection was not used before, or would be changed
    /// by the request. A body that can be read once is changed to one that can be read again.
    pub fn spare(&self, request: &mut Request<RequestBody>) -> Option<Spare> {
        if !self.is_reused || present::has(request.headers(), &UPGRADE) {
            return None;
        }
        let condition = match &self.connection {
            _ if request.method().is_idempotent() => Condition::Repeatable,
            Connection::Http1(connection) => Condition::Unacknowledged(connection.mark()?),
            Connection::Http2(..) => Condition::Unprocessed,
        };
        let body = SpareBody::of(request.body_mut())?;
        let head = match &self.connection {
            Connection::Http1(_) => None,
            Connection::Http2(..) => Some(copy(request)),
        };
        Some(Spare {
            head,
            body,
            condition,
        })
    }
}

/// A request without its body.
fn copy(request: &Request<RequestBody>) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    head.headers_mut().clone_from(request.headers());
    head.extensions_mut().clone_from(request.extensions());
    head
}

impl SpareBody {
    fn of(body: &mut RequestBody) -> Option<Self> {
        match body {
            RequestBody::Empty => Some(SpareBody::Whole(RequestBody::Empty)),
            RequestBody::Full(bytes) => Some(SpareBody::Whole(RequestBody::Full(bytes.clone()))),
            RequestBody::Replayed(replay) => Some(SpareBody::Shared(Arc::clone(replay.buffer()))),
            RequestBody::Copy(_) | RequestBody::Begun { .. } => None,
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
        match self.head {
            Some(head) => *request = head.map(|()| body),
            // Nothing of a response has come.
            None => *request.body_mut() = body,
        }
        true
    }

    /// There is a response: it is not needed.
    pub fn spared(self) {
        if let SpareBody::Own(buffer) = self.body {
            buffer.forget();
        }
    }
}
