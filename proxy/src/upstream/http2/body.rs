//! The body of a response that comes on a stream of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::http1::head::content_length;
use crate::http2::receiving::Receiving;
use crate::http2::sending::Sending;
use crate::stream::StreamIo;
use crate::upstream::body::RequestBody;

/// What comes after the head of a response.
///
/// Who drops it before its end gives the request up, too. A request that was answered in full is sent to its end.
#[derive(Debug)]
pub struct Http2Body {
    from_peer: Receiving,
    to_peer: Outgoing,
}

/// What is still sent.
#[derive(Debug)]
enum Outgoing {
    /// Nothing: the request has ended.
    Nothing,
    /// The rest of its body, by a task.
    Rest(Rest),
    /// Another protocol: the stream is no response any more.
    Switched(SendStream<Bytes>),
}

impl Http2Body {
    /// The body of a response with such headers.
    pub(super) fn new(headers: &HeaderMap, from_peer: RecvStream, rest: Option<Rest>) -> Self {
        let length = content_length(headers).ok().flatten();
        let mut body = Http2Body {
            from_peer: Receiving::new(from_peer, length),
            to_peer: rest.map_or(Outgoing::Nothing, Outgoing::Rest),
        };
        body.look_for_end();
        body
    }

    /// A stream on which another protocol is spoken from now on.
    pub(super) fn switched(from_peer: RecvStream, to_peer: SendStream<Bytes>) -> Self {
        Http2Body {
            from_peer: Receiving::new(from_peer, Some(0)),
            to_peer: Outgoing::Switched(to_peer),
        }
    }

    /// The other protocol; `None` where the stream has not been switched.
    pub(in crate::upstream) fn into_stream(mut self) -> Option<StreamIo> {
        match std::mem::replace(&mut self.to_peer, Outgoing::Nothing) {
            Outgoing::Switched(to_peer) => {
                Some(StreamIo::tunnel(to_peer, self.from_peer.into_stream()))
            }
            Outgoing::Nothing | Outgoing::Rest(_) => None,
        }
    }

    fn look_for_end(&mut self) {
        if self.from_peer.is_end_stream() && matches!(self.to_peer, Outgoing::Rest(_)) {
            let rest = std::mem::replace(&mut self.to_peer, Outgoing::Nothing);
            if let Outgoing::Rest(rest) = rest {
                rest.go_on();
            }
        }
    }

    fn is_switched(&self) -> bool {
        matches!(self.to_peer, Outgoing::Switched(_))
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if this.is_switched() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut this.from_peer).poll_frame(context));
        this.look_for_end();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_switched() || self.from_peer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.from_peer.size_hint()
    }
}

/// A task that sends the rest of a request; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Rest(Option<JoinHandle<()>>);

impl Rest {
    /// Sends what is left.
    pub(super) fn send(sending: Sending<RequestBody>) -> Self {
        let task = tokio::spawn(async move {
            if let Err(error) = sending.await {
                tracing::trace!(%error, "request body");
            }
        });
        Rest(Some(task))
    }

    /// It goes on to its end.
    fn go_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
