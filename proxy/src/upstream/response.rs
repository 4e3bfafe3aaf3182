//! The body of a response from upstream, whatever speaks HTTP there.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::error::ExchangeError;
use super::http1::Http1Body;
use super::http2::Http2Body;

/// Where the body of a response comes from.
#[derive(Debug)]
pub enum UpstreamBody {
    /// A connection of HTTP/1.1.
    Http1(Http1Body),
    /// One of HTTP/2.
    Http2(Http2Body),
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
            UpstreamBody::Http2(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(ExchangeError::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            UpstreamBody::Http1(body) => body.is_end_stream(),
            UpstreamBody::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            UpstreamBody::Http1(body) => body.size_hint(),
            UpstreamBody::Http2(body) => body.size_hint(),
        }
    }
}
