//! What a request is sent as, and what it could be sent as again.

use std::sync::Arc;

use http::Request;

use super::headers::Head;
use crate::upstream::body::RequestBody;
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::meter::BodyMeter;
use crate::upstream::body::replay::ReplayBuffer;

/// What another try would be made of.
pub(super) struct Outgoing {
    head: Option<Box<Head>>,
    body: Kept,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// A copy, as far as its body has no more bytes than this.
    Copy(usize),
    /// Nothing.
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
        let (first, kept) = match (meter, keep) {
            (None, _) => (RequestBody::Empty, Kept::Empty),
            (Some(meter), Keep::Nothing) => {
                let incoming = body;
                (RequestBody::Once { incoming, meter }, Kept::Gone)
            }
            (Some(meter), Keep::Copy(max_bytes)) => {
                let buffer = ReplayBuffer::new(body, meter, max_bytes);
                match buffer.replay() {
                    Some(body) => (body, Kept::Replay(buffer)),
                    None => (RequestBody::Empty, Kept::Gone),
                }
            }
        };
        let outgoing = Outgoing {
            head: (keep != Keep::Nothing).then(|| head.clone()),
            body: kept,
        };
        (Box::new(request(*head, first)), outgoing)
    }

    /// The request once more, where all of it is still here.
    pub(super) fn again(&mut self) -> Option<Box<Request<RequestBody>>> {
        let head = self.head.clone()?;
        let body = match &self.body {
            Kept::Empty => RequestBody::Empty,
            Kept::Replay(buffer) => buffer.replay()?,
            Kept::Gone => return None,
        };
        Some(Box::new(request(*head, body)))
    }
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
pub(super) fn request(head: Head, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    *request.extensions_mut() = head.extensions;
    request
}
