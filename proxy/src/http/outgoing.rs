//! What a request is sent as, and what it could be sent as again.

use std::sync::Arc;

use http::Request;

use super::headers::Head;
use crate::http1::maps;
use crate::upstream::body::RequestBody;
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::meter::BodyMeter;
use crate::upstream::body::replay::ReplayBuffer;
use crate::upstream::lease::Wanted;

/// What another try would be made of.
pub(super) struct Outgoing {
    head: KeptHead,
    body: Kept,
}

/// What is kept of a head.
enum KeptHead {
    Copy(Box<Head>),
    /// The request that was sent still has it.
    InPlace,
    Gone,
}

/// What is kept of a body.
enum Kept {
    /// There is none.
    Empty,
    /// What has been read of it.
    Replay(Arc<ReplayBuffer>),
    /// Nothing.
    Gone,
}

/// What is kept of a request once it has been sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) head: KeepHead,
    /// As much of its body, if any.
    pub(super) max_bytes: Option<usize>,
}

/// What is kept of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepHead {
    Copy,
    /// The head itself: nothing that is done to it on its way matters.
    InPlace,
    Nothing,
}

impl Outgoing {
    /// The first request, and what the next would be made of.
    pub(super) fn split(
        head: Box<Head>,
        body: ClientBody,
        meter: Option<Arc<BodyMeter>>,
        keep: Keep,
    ) -> (Box<Request<RequestBody>>, Self) {
        let (first, kept) = match (meter, keep.max_bytes) {
            (None, _) => (RequestBody::Empty, Kept::Empty),
            (Some(meter), None) => {
                let incoming = body;
                (RequestBody::Once { incoming, meter }, Kept::Gone)
            }
            (Some(meter), Some(max_bytes)) => {
                let buffer = ReplayBuffer::new(body, meter, max_bytes);
                match buffer.replay() {
                    Some(body) => (body, Kept::Replay(buffer)),
                    None => (RequestBody::Empty, Kept::Gone),
                }
            }
        };
        let outgoing = Outgoing {
            head: match keep.head {
                KeepHead::Copy => KeptHead::Copy(head.clone()),
                KeepHead::InPlace => KeptHead::InPlace,
                KeepHead::Nothing => KeptHead::Gone,
            },
            body: kept,
        };
        (request(head, first), outgoing)
    }

    /// Whether the head of the request is left as it is.
    pub(super) fn wanted(&self) -> Wanted {
        match self.head {
            KeptHead::InPlace => Wanted::Again,
            KeptHead::Copy(_) | KeptHead::Gone => Wanted::Once,
        }
    }

    /// Makes the request once more of what is kept; says whether all of it is still here.
    pub(super) fn renew(&self, sent: &mut Request<RequestBody>) -> bool {
        let body = match &self.body {
            Kept::Empty => Some(RequestBody::Empty),
            Kept::Replay(buffer) => buffer.replay(),
            Kept::Gone => None,
        };
        match (&self.head, body) {
            (KeptHead::Copy(head), Some(body)) => *sent = *request(head.clone(), body),
            (KeptHead::InPlace, Some(body)) => *sent.body_mut() = body,
            _ => return false,
        }
        true
    }
}

/// Nobody wants the request any more.
pub(super) fn spare(mut request: Box<Request<RequestBody>>) {
    maps::spare(std::mem::take(request.headers_mut()));
}

impl Outgoing {
    /// The body once more, for another request.
    pub(super) fn body_again(self) -> Option<ClientBody> {
        match self.body {
            Kept::Empty => Some(ClientBody::Empty),
            Kept::Replay(buffer) => Some(ClientBody::Filtered(Box::pin(buffer.replay()?))),
            Kept::Gone => None,
        }
    }
}

/// A request as it is sent.
pub(super) fn request(head: Box<Head>, body: RequestBody) -> Box<Request<RequestBody>> {
    let mut request = Box::<Request<RequestBody>>::default();
    *request.body_mut() = body;
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    *request.extensions_mut() = head.extensions;
    request
}
