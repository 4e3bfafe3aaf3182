//! A request's body as the client sends it, or as filters have made it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::BodyError;
use crate::http2::receiving::Receiving;

/// A body that is read by something else: that a filter has changed, or has read ahead.
pub type FilteredBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

/// Where the bytes of a request come from.
#[derive(Default)]
pub enum ClientBody {
    /// Nowhere: there are none.
    #[default]
    Empty,
    /// It came with its head.
    Whole(Bytes),
    /// The client, which speaks HTTP/1.1 with us.
    Http1(FilteredBody),
    /// A stream of HTTP/2.
    Http2(Receiving),
    /// A filter.
    Filtered(FilteredBody),
}

impl ClientBody {
    /// Puts something between the client and the upstream.
    pub fn filtered<B>(self, wrap: impl FnOnce(ClientBody) -> B) -> Self
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        ClientBody::Filtered(Box::pin(wrap(self)))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this {
            ClientBody::Empty => Poll::Ready(None),
            ClientBody::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = ClientBody::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            ClientBody::Http2(stream) => Pin::new(stream)
                .poll_frame(context)
                .map_err(|error| BodyError::Downstream(error.into())),
            ClientBody::Http1(body) | ClientBody::Filtered(body) => {
                body.as_mut().poll_frame(context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Empty => true,
            ClientBody::Whole(_) => false,
            ClientBody::Http2(stream) => stream.is_end_stream(),
            ClientBody::Http1(body) | ClientBody::Filtered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Empty => SizeHint::with_exact(0),
            ClientBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ClientBody::Http2(stream) => stream.size_hint(),
            ClientBody::Http1(body) | ClientBody::Filtered(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for ClientBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            ClientBody::Empty => "Empty",
            ClientBody::Whole(_) => "Whole",
            ClientBody::Http1(_) => "Http1",
            ClientBody::Http2(_) => "Http2",
            ClientBody::Filtered(_) => "Filtered",
        };
        formatter.debug_tuple(name).finish_non_exhaustive()
    }
}
