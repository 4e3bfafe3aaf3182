//! A message on its way out: its head and what there is of its body in as few writes as can be.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderName;
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::plenty::MAX_READ;
use super::text;

/// How a body is framed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, or it is left out.
    None,
    /// So many bytes are to come.
    Length(u64),
    /// In chunks; behind the last of them these trailers may be sent.
    Chunked(Vec<HeaderName>),
    /// It ends with the connection.
    UntilClose,
}

/// Why a message cannot be written to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError<E> {
    /// Its connection is broken.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// Its body cannot be had.
    #[error("the body failed")]
    Body(#[source] E),
    /// Its body is no longer; what there is of it has been written.
    #[error("the body is {missing} bytes shorter than its content-length says")]
    Short {
        /// How much was not there.
        missing: u64,
    },
}

thread_local! {
    /// Where it is put together.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(vec![]) };
}

/// What is left to be written of a message.
#[derive(Debug)]
pub(crate) struct Sending<B> {
    head: Bytes,
    pieces: Pieces,
    /// How many bytes there are in the pieces.
    queued: usize,
    /// `None`: all of it was read.
    body: Option<B>,
    coding: Coding,
    /// The only data that was read as long as nothing is written: so the body can be had again.
    first: Option<Bytes>,
    /// Whether it is read no further than that, as the body may be wanted again.
    keeps_first: bool,
    /// How much of the body is not there.
    missing: u64,
    has_written: bool,
}

/// Pieces in the order in which they are written. One alone, as of most bodies, takes no memory.
#[derive(Debug, Default)]
struct Pieces {
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
}

impl Pieces {
    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    fn push(&mut self, piece: Bytes) {
        match self.first {
            None => self.first = Some(piece),
            Some(_) => self.rest.push_back(piece),
        }
    }

    /// The first has been written.
    fn pop(&mut self) {
        self.first = self.rest.pop_front();
    }

    fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.rest)
    }
}

/// How the rest of a body is framed.
#[derive(Debug)]
enum Coding {
    Length(u64),
    Chunked(Vec<HeaderName>),
    UntilClose,
}

/// No more of a body is read before it is written.
const MAX_QUEUED: usize = MAX_READ;
const MAX_PIECES: usize = 16;
/// So much is put together before it is written: what is sent as one piece costs less than what is sent as several.
const MAX_JOINED: usize = 4 * 1024;
/// The head, and the pieces of a frame more than that: a size, data and the end.
const MAX_SLICES: usize = 1 + MAX_PIECES + 3;

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    /// A message that is sent once.
    pub(crate) fn new(head: Bytes, framing: Framing, body: B) -> Self {
        let (coding, body) = match framing {
            Framing::None => (Coding::Length(0), None),
            Framing::Length(length) => (Coding::Length(length), Some(body)),
            Framing::Chunked(announced) => (Coding::Chunked(announced), Some(body)),
            Framing::UntilClose => (Coding::UntilClose, Some(body)),
        };
        Sending {
            head,
            pieces: Pieces::default(),
            queued: 0,
            body,
            coding,
            first: None,
            keeps_first: false,
            missing: 0,
            has_written: false,
        }
    }

    /// A message that is sent again elsewhere where nothing of it can be written.
    pub(crate) fn again(head: Bytes, framing: Framing, body: B) -> Self {
        Sending {
            keeps_first: true,
            ..Sending::new(head, framing, body)
        }
    }

    /// Whether a byte of it was written.
    pub(crate) fn has_written(&self) -> bool {
        self.has_written
    }

    /// The body as it was, where nothing was written: what was read of it, and the rest.
    pub(crate) fn into_unsent(self) -> (Option<Bytes>, Option<B>) {
        (self.first, self.body)
    }

    /// Writes it to its end.
    pub(crate) fn poll<IO>(
        &mut self,
        context: &mut Context<'_>,
        io: &mut IO,
    ) -> Poll<Result<(), SendError<B::Error>>>
    where
        IO: AsyncWrite + Unpin,
    {
        loop {
            self.fill(context)?;
            if self.head.is_empty() && self.pieces.is_empty() {
                ready!(Pin::new(io).poll_flush(context)).map_err(SendError::Lost)?;
                return match (&self.body, self.missing) {
                    (Some(_), _) => Poll::Pending,
                    (None, 0) => Poll::Ready(Ok(())),
                    (None, missing) => Poll::Ready(Err(SendError::Short { missing })),
                };
            }
            let written = ready!(self.poll_write(context, io)).map_err(SendError::Lost)?;
            if written == 0 {
                return Poll::Ready(Err(SendError::Lost(io::ErrorKind::WriteZero.into())));
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
        if self.head.len() + self.queued <= MAX_JOINED {
            return JOINED.with_borrow_mut(|joined| {
                joined.clear();
                joined.extend_from_slice(&self.head);
                self.pieces
                    .iter()
                    .for_each(|piece| joined.extend_from_slice(piece));
                Pin::new(io).poll_write(context, joined)
            });
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let head = Some(&self.head).filter(|head| !head.is_empty());
        let mut count = 0;
        for (slice, bytes) in slices
            .iter_mut()
            .zip(head.into_iter().chain(self.pieces.iter()))
        {
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
        while let Some(piece) = self.pieces.first.as_mut() {
            if rest < piece.len() {
                piece.advance(rest);
                return;
            }
            rest -= piece.len();
            self.pieces.pop();
        }
    }

    /// Reads what there is of the body, as far as there is room for it.
    fn fill(&mut self, context: &mut Context<'_>) -> Result<(), SendError<B::Error>> {
        while let Some(body) = &mut self.body {
            let has_room = self.queued < MAX_QUEUED && self.pieces.len() < MAX_PIECES;
            if !has_room || self.first.is_some() {
                return Ok(());
            }
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
                return Ok(());
            };
            let frame = frame.transpose().map_err(SendError::Body)?;
            let is_last = frame.is_none() || body.is_end_stream();
            self.take(frame, is_last);
        }
        Ok(())
    }

    fn take(&mut self, frame: Option<Frame<Bytes>>, is_last: bool) {
        let Some(frame) = frame else {
            return self.end(None);
        };
        match frame.into_data() {
            Ok(data) => {
                if self.keeps_first && !self.has_written && !data.is_empty() {
                    self.first = Some(data.clone());
                }
                self.put(data);
                if is_last {
                    self.end(None);
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
            Coding::Length(_) | Coding::UntilClose => self.queue(data),
            Coding::Chunked(_) => {
                self.queue(text::chunk_size(data.len()));
                self.queue(data);
                self.queue(Bytes::from_static(b"\r\n"));
            }
        }
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) {
        self.body = None;
        match (&self.coding, trailers) {
            (Coding::Length(missing), _) => self.missing = *missing,
            (Coding::UntilClose, _) => {}
            (Coding::Chunked(announced), Some(trailers)) => {
                let end = text::trailers(trailers, announced);
                self.queue(end);
            }
            (Coding::Chunked(_), None) => self.queue(Bytes::from_static(b"0\r\n\r\n")),
        }
    }

    fn queue(&mut self, piece: Bytes) {
        self.queued += piece.len();
        self.pieces.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http::HeaderMap;
    use http_body_util::combinators::BoxBody;
    use http_body_util::{BodyExt, Empty, StreamBody};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const HEAD: Bytes = Bytes::from_static(b"HEAD\r\n\r\n");

    type Failing = BoxBody<Bytes, &'static str>;

    fn pair() -> (DuplexStream, DuplexStream) {
        tokio::io::duplex(16)
    }

    fn sending(framing: Framing, body: Failing) -> Sending<Failing> {
        Sending::again(HEAD, framing, body)
    }

    /// What is written of a message, and how that ended.
    async fn written(
        mut sending: Sending<Failing>,
    ) -> (String, Result<(), SendError<&'static str>>) {
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

    /// A body of these pieces, which fails with the last of them where that is none.
    fn body(pieces: impl IntoIterator<Item = Result<&'static str, &'static str>>) -> Failing {
        let frames = pieces
            .into_iter()
            .map(|piece| piece.map(|text| Frame::data(Bytes::from_static(text.as_bytes()))));
        let frames: Vec<_> = frames.collect();
        BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn a_body_follows_its_head() {
        let long = body([Ok("01234567890123456789")]);
        let (text, sent) = written(sending(Framing::Length(20), long)).await;

        assert!(sent.is_ok());
        assert_eq!(text, "HEAD\r\n\r\n01234567890123456789");
    }

    #[tokio::test]
    async fn a_body_that_ends_with_its_connection_is_written_as_it_is() {
        let (text, sent) = written(sending(Framing::UntilClose, body([Ok("ab"), Ok("c")]))).await;

        assert!(sent.is_ok());
        assert_eq!(text, "HEAD\r\n\r\nabc");
    }

    #[tokio::test]
    async fn a_body_in_chunks_ends_with_an_empty_one() {
        let pieces = body([Ok("abc"), Ok("0123456789abcdefg")]);

        let (text, sent) = written(sending(Framing::Chunked(vec![]), pieces)).await;

        assert!(sent.is_ok());
        let chunks = "3\r\nabc\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n";
        assert_eq!(text, format!("HEAD\r\n\r\n{chunks}"));
    }

    #[tokio::test]
    async fn a_body_that_fails_midway_never_ends_well() {
        let failing = body([Ok("abc"), Err("broken")]);

        let (text, sent) = written(sending(Framing::Chunked(vec![]), failing)).await;

        assert!(matches!(sent, Err(SendError::Body("broken"))));
        assert_eq!(text, "HEAD\r\n\r\n3\r\nabc\r\n");
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_its_length_says() {
        let (text, sent) = written(sending(Framing::Length(2), body([Ok("abc")]))).await;
        assert!(sent.is_ok());
        assert_eq!(text, "HEAD\r\n\r\nab");

        let (text, sent) = written(sending(Framing::Length(5), body([Ok("abc")]))).await;
        assert!(matches!(sent, Err(SendError::Short { missing: 2 })));
        assert_eq!(text, "HEAD\r\n\r\nabc");
    }

    #[tokio::test]
    async fn nothing_of_a_message_is_lost_that_could_not_be_written() {
        let (mut here, there) = pair();
        drop(there);
        let mut sending = sending(Framing::Length(6), body([Ok("abc"), Ok("def")]));

        let sent = poll_fn(|context| sending.poll(context, &mut here)).await;

        assert!(sent.is_err() && !sending.has_written());
        let (first, rest) = sending.into_unsent();
        assert_eq!(first.expect("what was read"), "abc");
        let rest = rest.expect("what was not").collect().await;
        assert_eq!(rest.expect("the rest").to_bytes(), "def");
    }

    #[test]
    fn trailers_that_nobody_has_announced_are_left_out() {
        let none = BodyExt::boxed(Empty::new().map_err(|_| "never"));
        let mut sending = sending(Framing::Chunked(vec![]), none);
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().expect("a value"))]);

        sending.take(Some(Frame::trailers(trailers)), false);

        assert!(sending.pieces.iter().eq(["0\r\n\r\n"]));
    }
}
