//! The body of a response from upstream, whatever speaks HTTP there.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error::ExchangeError;
use super::http1::Http1Body;

/// Where the body of a response comes from.
#[derive(Debug)]
pub enum UpstreamBody {
    /// A connection of HTTP/1.1.
    Http1(Http1Body),
    /// One of HTTP/2.
    Hyper(Incoming),
}

impl Default for UpstreamBody {
    fn default() -> Self {
        UpstreamBody::Http1(Http1Body::default())
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        match self.get_mut() {
            UpstreamBody::Http1(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(ExchangeError::Http1),
            UpstreamBody::Hyper(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(ExchangeError::Hyper),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            UpstreamBody::Http1(body) => body.is_end_stream(),
            UpstreamBody::Hyper(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            UpstreamBody::Http1(body) => body.size_hint(),
            UpstreamBody::Hyper(body) => body.size_hint(),
        }
    }
}
