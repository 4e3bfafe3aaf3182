//! A request on its way out: its head and what there is of its body in as few writes as can be.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderName;
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::error::Http1Error;
use super::request::{self, Framing};
use crate::upstream::body::RequestBody;

/// What is left to be written of a request.
#[derive(Debug)]
pub(super) struct Sending {
    head: Bytes,
    pieces: VecDeque<Bytes>,
    /// How many bytes there are in the pieces.
    queued: usize,
    /// `None`: all of it was read.
    body: Option<RequestBody>,
    coding: Coding,
    /// The only data that was read as long as nothing is written: so the body can be had again.
    first: Option<Bytes>,
    has_written: bool,
    is_proper: bool,
}

/// How the rest of a body is framed.
#[derive(Debug)]
enum Coding {
    Length(u64),
    Chunked(Vec<HeaderName>),
}

/// No more of a body is read before it is written.
const MAX_QUEUED: usize = 64 * 1024;
const MAX_PIECES: usize = 16;
/// The head, and the pieces of a frame more than that: a size, data and the end.
const MAX_SLICES: usize = 1 + MAX_PIECES + 3;

impl Sending {
    pub(super) fn new(head: Bytes, framing: Framing, body: RequestBody, is_proper: bool) -> Self {
        let (coding, body) = match framing {
            Framing::None => (Coding::Length(0), None),
            Framing::Length(length) => (Coding::Length(length), Some(body)),
            Framing::Chunked(announced) => (Coding::Chunked(announced), Some(body)),
        };
        Sending {
            head,
            pieces: VecDeque::new(),
            queued: 0,
            body,
            coding,
            first: None,
            has_written: false,
            is_proper,
        }
    }

    /// Whether a byte of it was written.
    pub(super) fn has_written(&self) -> bool {
        self.has_written
    }

    /// The body as it was, where nothing was written.
    pub(super) fn into_unsent(self) -> RequestBody {
        let rest = self.body.unwrap_or(RequestBody::Empty);
        match self.first {
            Some(first) => RequestBody::Begun {
                first: Some(first),
                rest: Box::new(rest),
            },
            None => rest,
        }
    }

    /// Writes it to its end.
    pub(super) fn poll<IO>(
        &mut self,
        context: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<Result<(), Http1Error>>
    where
        IO: AsyncWrite + Unpin,
    {
        loop {
            self.fill(context)?;
            if self.head.is_empty() && self.pieces.is_empty() {
                ready!(Pin::new(io).poll_flush(context)).map_err(lost)?;
                return match self.body {
                    None => Poll::Ready(Ok(())),
                    Some(_) => Poll::Pending,
                };
            }
            let written = ready!(self.poll_write(context, io)).map_err(lost)?;
            if written == 0 {
                return Poll::Ready(Err(lost(io::ErrorKind::WriteZero.into())));
            }
            self.has_written = true;
            self.first = None;
            self.advance(written);
        }
    }

    fn poll_write<IO: AsyncWrite + Unpin>(
        &self,
        context: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<io::Result<usize>> {
        if self.pieces.is_empty() {
            return Pin::new(io).poll_write(context, &self.head);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let head = Some(&self.head).filter(|head| !head.is_empty());
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(head.into_iter().chain(&self.pieces)) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        match io.is_write_vectored() {
            true => Pin::new(io).poll_write_vectored(context, &slices[..count]),
            false => Pin::new(io).poll_write(context, &slices[0]),
        }
    }

    fn advance(&mut self, written: usize) {
        let of_head = written.min(self.head.len());
        self.head.advance(of_head);
        let mut rest = written - of_head;
        self.queued -= rest;
        while let Some(piece) = self.pieces.front_mut() {
            if rest < piece.len() {
                piece.advance(rest);
                return;
            }
            rest -= piece.len();
            self.pieces.pop_front();
        }
    }

    /// Reads what there is of the body, as far as there is room for it.
    fn fill(&mut self, context: &mut Context<'_>) -> Result<(), Http1Error> {
        while let Some(body) = &mut self.body {
            let has_room = self.queued < MAX_QUEUED && self.pieces.len() < MAX_PIECES;
            if !has_room || (!self.has_written && self.first.is_some()) {
                return Ok(());
            }
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
                return Ok(());
            };
            let frame = frame.transpose().map_err(Http1Error::RequestBody)?;
            let is_last = frame.is_none() || body.is_end_stream();
            self.take(frame, is_last)?;
        }
        Ok(())
    }

    fn take(&mut self, frame: Option<Frame<Bytes>>, is_last: bool) -> Result<(), Http1Error> {
        let Some(frame) = frame else {
            return self.end(None);
        };
        match frame.into_data() {
            Ok(data) => {
                if !self.has_written && !data.is_empty() {
                    self.first = Some(data.clone());
                }
                self.put(data);
                match is_last {
                    true => self.end(None),
                    false => Ok(()),
                }
            }
            // Nothing follows trailers.
            Err(frame) => self.end(frame.into_trailers().ok().as_ref()),
        }
    }

    fn put(&mut self, mut data: Bytes) {
        if let Coding::Length(remaining) = &mut self.coding {
            // What is beyond the length that was told would be taken for another request.
            data.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
            *remaining -= data.len() as u64;
        }
        if data.is_empty() {
            return;
        }
        match self.coding {
            Coding::Length(_) => self.queue(data),
            Coding::Chunked(_) => {
                self.queue(request::chunk_size(data.len()));
                self.queue(data);
                self.queue(Bytes::from_static(b"\r\n"));
            }
        }
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), Http1Error> {
        self.body = None;
        match (&self.coding, trailers) {
            (Coding::Length(0), _) => {}
            (Coding::Length(missing), _) => {
                return Err(Http1Error::ShortBody { missing: *missing });
            }
            (Coding::Chunked(announced), Some(trailers)) => {
                let end = request::trailers(trailers, announced, self.is_proper);
                self.queue(end);
            }
            (Coding::Chunked(_), None) => self.queue(Bytes::from_static(b"0\r\n\r\n")),
        }
        Ok(())
    }

    fn queue(&mut self, piece: Bytes) {
        self.queued += piece.len();
        self.pieces.push_back(piece);
    }
}

fn lost(source: io::Error) -> Http1Error {
    Http1Error::Lost {
        has_begun: false,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::HeaderMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::upstream::body::meter::Copied;

    const HEAD: Bytes = Bytes::from_static(b"HEAD\r\n\r\n");

    fn pair() -> (DuplexStream, DuplexStream) {
        tokio::io::duplex(16)
    }

    fn sending(framing: Framing, body: RequestBody) -> Sending {
        Sending::new(HEAD, framing, body, false)
    }

    /// What is written of a request, and how that ended.
    async fn written(mut sending: Sending) -> (String, Result<(), Http1Error>) {
        let (mut here, mut there) = pair();
        let mut text = String::new();
        let write = async {
            let sent = poll_fn(|context| sending.poll(context, &mut here)).await;
            here.shutdown().await.expect("ended");
            sent
        };
        let (sent, read) = tokio::join!(write, there.read_to_string(&mut text));
        read.expect("text");
        (text, sent)
    }

    fn full(text: &'static str) -> RequestBody {
        RequestBody::Full(Some(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn a_body_follows_its_head() {
        let (text, sent) =
            written(sending(Framing::Length(20), full("01234567890123456789"))).await;

        assert!(sent.is_ok());
        assert_eq!(text, "HEAD\r\n\r\n01234567890123456789");
    }

    #[tokio::test]
    async fn a_body_in_chunks_ends_with_an_empty_one() {
        let (pieces, received) = mpsc::channel(4);
        for text in ["abc", "0123456789abcdefg"] {
            let data = Copied::Data(Bytes::from_static(text.as_bytes()));
            pieces.try_send(data).expect("room");
        }
        pieces.try_send(Copied::End).expect("room");

        let (text, sent) = written(sending(
            Framing::Chunked(vec![]),
            RequestBody::Copy(received),
        ))
        .await;

        assert!(sent.is_ok());
        let chunks = "3\r\nabc\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n";
        assert_eq!(text, format!("HEAD\r\n\r\n{chunks}"));
    }

    #[tokio::test]
    async fn a_body_that_fails_midway_never_ends_well() {
        let (pieces, received) = mpsc::channel(4);
        let data = Copied::Data(Bytes::from_static(b"abc"));
        pieces.try_send(data).expect("room");
        drop(pieces);

        let (text, sent) = written(sending(
            Framing::Chunked(vec![]),
            RequestBody::Copy(received),
        ))
        .await;

        assert!(matches!(sent, Err(Http1Error::RequestBody(_))));
        assert_eq!(text, "HEAD\r\n\r\n3\r\nabc\r\n");
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_its_length_says() {
        let (text, sent) = written(sending(Framing::Length(2), full("abc"))).await;
        assert!(sent.is_ok());
        assert_eq!(text, "HEAD\r\n\r\nab");

        let (_, sent) = written(sending(Framing::Length(5), full("abc"))).await;
        assert!(matches!(sent, Err(Http1Error::ShortBody { missing: 2 })));
    }

    #[tokio::test]
    async fn nothing_of_a_request_is_lost_that_could_not_be_written() {
        let (mut here, there) = pair();
        drop(there);
        let mut sending = sending(Framing::Length(3), full("abc"));

        let sent = poll_fn(|context| sending.poll(context, &mut here)).await;

        assert!(sent.is_err() && !sending.has_written());
        let mut body = sending.into_unsent();
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let data = frame.expect("all of it").expect("read").into_data();
        assert_eq!(data.expect("data"), "abc");
        assert!(body.is_end_stream());
    }

    #[test]
    fn trailers_that_nobody_has_announced_are_left_out() {
        let mut sending = sending(Framing::Chunked(vec![]), RequestBody::Empty);
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().expect("a value"))]);

        sending
            .take(Some(Frame::trailers(trailers)), false)
            .expect("an end");

        assert_eq!(sending.pieces, ["0\r\n\r\n"]);
    }
}
