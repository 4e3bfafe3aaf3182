//! Bodies of gRPC-Web.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// Marks the message that holds trailers.
const TRAILERS: u8 = 0x80;

/// The bytes of a body in base64; what is padded may be followed by more.
pub(super) struct FromText<B: Body> {
    inner: B,
    /// The beginning of a group of four.
    begun: BytesMut,
    to_error: fn(Arc<str>) -> B::Error,
    has_ended: bool,
}

impl<B: Body> FromText<B> {
    pub(super) fn new(inner: B, to_error: fn(Arc<str>) -> B::Error) -> Self {
        FromText {
            inner,
            begun: BytesMut::new(),
            to_error,
            has_ended: false,
        }
    }

    fn fail(&mut self) -> B::Error {
        self.has_ended = true;
        (self.to_error)("Bad gRPC-web request, invalid base64 data.".into())
    }
}

/// The bytes of whole groups; each may be padded.
fn decoded(text: &[u8]) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text;
    while !rest.is_empty() {
        // Up to the first padded group: the decoder knows padding at the end only.
        let end = rest
            .iter()
            .position(|byte| *byte == b'=')
            .map_or(rest.len(), |position| position / 4 * 4 + 4);
        let (part, more) = rest.split_at_checked(end)?;
        BASE64_STANDARD.decode_vec(part, &mut bytes).ok()?;
        rest = more;
    }
    Some(bytes.into())
}

impl<B> Body for FromText<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            if this.has_ended {
                return Poll::Ready(None);
            }
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                None if this.begun.is_empty() => {
                    this.has_ended = true;
                    return Poll::Ready(None);
                }
                // A group of less than four at the end.
                None => return Poll::Ready(Some(Err(this.fail()))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame,
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            this.begun.extend_from_slice(&data);
            let whole = this.begun.len() / 4 * 4;
            let groups = this.begun.split_to(whole);
            match decoded(&groups) {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => return Poll::Ready(Some(Err(this.fail()))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A body of gRPC whose trailers are its last message.
pub(super) struct ToWeb<B> {
    inner: B,
    is_text: bool,
    has_ended: bool,
}

impl<B> ToWeb<B> {
    pub(super) fn new(inner: B, is_text: bool) -> Self {
        ToWeb {
            inner,
            is_text,
            has_ended: false,
        }
    }

    fn written(&self, data: Bytes) -> Frame<Bytes> {
        Frame::data(match self.is_text {
            true => BASE64_STANDARD.encode(data).into(),
            false => data,
        })
    }
}

impl<B> Body for ToWeb<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if this.has_ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
            None => {
                this.has_ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => frame,
        };
        let written = match frame.into_data() {
            Ok(data) => this.written(data),
            Err(other) => {
                this.has_ended = true;
                let trailers = other.into_trailers().unwrap_or_default();
                this.written(message(&trailers))
            }
        };
        Poll::Ready(Some(Ok(written)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Trailers as a message: like the head of HTTP/1, without a space after the colon, as Envoy writes it.
fn message(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.put_u8(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let mut message = BytesMut::with_capacity(lines.len() + 5);
    message.put_u8(TRAILERS);
    message.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    message.extend_from_slice(&lines);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_parts_may_follow_each_other() {
        assert_eq!(decoded(b"aGk=aGk=").as_deref(), Some(&b"hihi"[..]));
        assert_eq!(decoded(b"aGkhaGk=").as_deref(), Some(&b"hi!hi"[..]));
        assert_eq!(decoded(b"a=b="), None);
        assert_eq!(decoded(b"===="), None);
    }

    #[test]
    fn trailers_are_a_message() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));

        assert_eq!(&message(&trailers)[..], b"\x80\0\0\0\x0fgrpc-status:0\r\n");
    }
}
