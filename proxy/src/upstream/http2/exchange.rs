//! One request on a stream of its own, until the head of its response is here.
//!
//! Whoever waits for the response sends the request meanwhile. What is left of it when the response begins is sent by a
//! task, which ends with the response at the latest where that is given up.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;

use super::body::{Http2Body, Rest};
use super::{Stream, head};
use crate::http1::head::content_length;
use crate::http2::sending::Sending;
use crate::http2::shared;
use crate::upstream::HttpVersion;
use crate::upstream::body::RequestBody;
use crate::upstream::error::ExchangeError;
use crate::upstream::lease::SendFailure;
use crate::upstream::response::UpstreamBody;

/// A request that is being sent.
struct Exchange {
    response: ResponseFuture,
    to_peer: Outgoing,
}

/// What is still sent.
enum Outgoing {
    /// Nothing: the request has ended.
    Nothing,
    Body(Sending<RequestBody>),
    /// Of a CONNECT: what follows is another protocol, where the peer agrees.
    Connect(SendStream<Bytes>),
}

impl Stream {
    /// Sends the request; the response is here when its head is.
    pub(in crate::upstream) async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        if !self.is_open {
            self.is_open = self.connection.streams.open().await;
        }
        let opener = self.connection.opener().filter(|_| self.is_open);
        let Some(opener) = opener else {
            return Err(SendFailure::unsent(ExchangeError::Ended));
        };
        let begun = Exchange::begin(opener, request, self.connection.carries());
        if begun.as_ref().is_err_and(|failure| failure.is_unsent) {
            self.connection.retire();
        }
        let mut exchange = begun?;
        let response = poll_fn(|context| exchange.poll(context)).await;
        match response {
            Ok(response) => exchange.answered(response).map_err(SendFailure::from),
            Err(_) if self.connection.streams.are_silent() => Err(ExchangeError::Silent.into()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Stream {
    /// Sends a request of HTTP/1.1 as one of HTTP/2; its head is its own meanwhile, and its body where it was not sent.
    pub(in crate::upstream) async fn send_http1(
        &mut self,
        request: &mut Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        let Some(mut shared) = head::of_http1(request) else {
            return Err(SendFailure::unsent(ExchangeError::Ended));
        };
        let sent = self.send(&mut shared).await;
        if sent.as_ref().is_err_and(|failure| failure.is_unsent) {
            *request.body_mut() = std::mem::take(shared.body_mut());
        }
        let mut response = sent?;
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }
}

impl Exchange {
    /// Opens a stream with the head of the request.
    fn begin(
        mut opener: SendRequest<Bytes>,
        request: &mut Request<RequestBody>,
        version: HttpVersion,
    ) -> Result<Self, SendFailure> {
        head::prepare(request, version);
        // Nobody waits here: it has no stream yet that could be waited for.
        let ready = opener.poll_ready(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(Err(error)) = ready {
            return Err(SendFailure::unsent(error.into()));
        }
        let (head, body) = std::mem::take(request).into_parts();
        let is_connect = head.method == Method::CONNECT;
        let is_whole = !is_connect && body.is_end_stream();
        let head = Request::from_parts(head, ());
        let (response, stream) = opener.send_request(head, is_whole)?;
        let to_peer = match is_connect {
            true => Outgoing::Connect(stream),
            false if is_whole => Outgoing::Nothing,
            false if version == HttpVersion::Http1 => {
                let sending = Sending::new(stream, body);
                Outgoing::Body(sending.bounding_trailers(shared::MAX_HEAD))
            }
            false => Outgoing::Body(Sending::new(stream, body)),
        };
        Ok(Exchange { response, to_peer })
    }

    /// Goes on until the head of the response is here.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, h2::Error>> {
        if let Outgoing::Body(sending) = &mut self.to_peer
            && let Poll::Ready(sent) = Pin::new(sending).poll(context)
        {
            // Who answers early may want no more: what is wrong with the stream is told instead of a response.
            if let Err(error) = sent {
                tracing::trace!(%error, "request body");
            }
            self.to_peer = Outgoing::Nothing;
        }
        Pin::new(&mut self.response).poll(context)
    }

    fn answered(
        self,
        response: Response<RecvStream>,
    ) -> Result<Response<UpstreamBody>, ExchangeError> {
        let (head, from_peer) = response.into_parts();
        let body = match self.to_peer {
            Outgoing::Nothing => Http2Body::new(&head.headers, from_peer, None),
            Outgoing::Body(sending) => {
                Http2Body::new(&head.headers, from_peer, Some(Rest::send(sending)))
            }
            Outgoing::Connect(to_peer) if head.status == StatusCode::OK => {
                if matches!(content_length(&head.headers), Ok(Some(1..))) {
                    return Err(refused(to_peer));
                }
                Http2Body::switched(from_peer, to_peer)
            }
            Outgoing::Connect(_) => Http2Body::new(&head.headers, from_peer, None),
        };
        Ok(Response::from_parts(head, UpstreamBody::Http2(body)))
    }
}

/// An agreement to another protocol has no body.
fn refused(mut to_peer: SendStream<Bytes>) -> ExchangeError {
    to_peer.send_reset(Reason::INTERNAL_ERROR);
    h2::Error::from(Reason::INTERNAL_ERROR).into()
}
