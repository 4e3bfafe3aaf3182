//! A body on its way to a peer: the frames of one stream of HTTP/2.
//!
//! Each call of the library takes the lock that a connection's streams share, so that it is asked only what must be
//! known: whether there is room, where much has been handed over since it last was; whether the peer has reset the
//! stream, where something is waited for.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use super::shared;
use crate::hop_by_hop;

/// So much is handed to the library without asking whether the peer takes it.
const MAX_UNASKED: usize = 32 * 1024;

/// Sends a body to its end. Whoever drops it early gives the stream up.
pub struct Sending<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// Waits for room.
    waiting: Option<Piece>,
    /// Bytes handed over since there was room for more.
    unasked: usize,
    /// No larger ones are sent.
    max_trailers: usize,
}

/// Some of a body.
struct Piece {
    data: Bytes,
    is_last: bool,
}

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum SendError<E> {
    /// The peer wants no more of it.
    #[error("the peer has reset the stream: {0}")]
    Reset(Reason),
    /// The stream is no more.
    #[error("the stream was lost")]
    Lost(#[source] h2::Error),
    /// There was no more of it. The peer is told, with the reason that another peer had given for it, if one has.
    #[error("the body ended early")]
    Body(#[source] E),
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes, Error: Error + 'static> + Unpin,
{
    /// On a stream whose head is sent.
    pub fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Sending {
            stream,
            body,
            waiting: None,
            unasked: 0,
            max_trailers: usize::MAX,
        }
    }

    /// The stream is reset where trailers are larger.
    pub fn bounding_trailers(self, max_trailers: usize) -> Self {
        Sending {
            max_trailers,
            ..self
        }
    }

    /// Sends a piece; whether it was the last.
    fn send(&mut self, piece: Piece) -> Result<bool, SendError<B::Error>> {
        let Piece { data, is_last } = piece;
        self.unasked += data.len();
        // An empty piece says nothing but that it is the last.
        if is_last || !data.is_empty() {
            let sent = self.stream.send_data(data, is_last);
            sent.map_err(SendError::Lost)?;
        }
        Ok(is_last)
    }

    /// Ready once all that was handed over may be sent, and more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError<B::Error>>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(SendError::Lost(error))),
                None => return self.poll_reset(context),
            }
        }
        self.unasked = 0;
        Poll::Ready(Ok(()))
    }

    /// Ready where the peer wants no more.
    fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError<B::Error>>> {
        Poll::Ready(Err(match ready!(self.stream.poll_reset(context)) {
            Ok(reason) => SendError::Reset(reason),
            Err(error) => SendError::Lost(error),
        }))
    }

    fn fail(&mut self, error: B::Error) -> SendError<B::Error> {
        self.stream.send_reset(reason_of(&error));
        SendError::Body(error)
    }
}

impl<B> Future for Sending<B>
where
    B: Body<Data = Bytes, Error: Error + 'static> + Unpin,
{
    type Output = Result<(), SendError<B::Error>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if this.waiting.is_some() {
                ready!(this.poll_room(context))?;
            }
            if let Some(piece) = this.waiting.take()
                && this.send(piece)?
            {
                return Poll::Ready(Ok(()));
            }
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(this.fail(error))),
                Poll::Ready(None) => {
                    let end = this.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(end.map_err(SendError::Lost));
                }
                Poll::Pending => return this.poll_reset(context),
            };
            match frame.into_data() {
                Ok(data) => {
                    let is_last = this.body.is_end_stream();
                    if this.unasked >= MAX_UNASKED {
                        // Room that is asked for before there is something for it is kept from other streams.
                        this.stream.reserve_capacity(1);
                        this.waiting = Some(Piece { data, is_last });
                    } else if this.send(Piece { data, is_last })? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(frame) => {
                    if let Ok(mut trailers) = frame.into_trailers() {
                        hop_by_hop::end(&mut trailers);
                        if shared::size(&trailers) > this.max_trailers {
                            this.stream.send_reset(Reason::INTERNAL_ERROR);
                            let lost = Reason::INTERNAL_ERROR.into();
                            return Poll::Ready(Err(SendError::Lost(lost)));
                        }
                        let sent = this.stream.send_trailers(trailers);
                        return Poll::Ready(sent.map_err(SendError::Lost));
                    }
                }
            }
        }
    }
}

/// What a peer is told of an error: what another has said, where that is its cause.
fn reason_of(error: &(dyn Error + 'static)) -> Reason {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .find_map(|error| error.downcast_ref::<h2::Error>())
        .and_then(h2::Error::reason)
        .unwrap_or(Reason::INTERNAL_ERROR)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream;
    use h2::server::SendResponse;
    use h2::{RecvStream, client, server};
    use http::{HeaderMap, HeaderValue, Request, Response};
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("what was sent to us ended early")]
    struct Cut(#[source] h2::Error);

    type Pieces = Vec<Result<Frame<Bytes>, Cut>>;

    /// Both ends of a stream, the head of whose response is sent.
    async fn streams() -> (SendStream<Bytes>, RecvStream) {
        let (here, there) = tokio::io::duplex(1024 * 1024);
        let (answer, asked) = tokio::join!(ask(there), accept(here));
        let stream = { asked }.send_response(Response::new(()), false);
        let response = answer.await.expect("a response");
        (stream.expect("a head is sent"), response.into_body())
    }

    async fn ask(io: tokio::io::DuplexStream) -> client::ResponseFuture {
        let (client, connection) = client::handshake(io).await.expect("a client");
        tokio::spawn(connection);
        let mut client = client.ready().await.expect("a stream");
        let request = Request::get("http://a/").body(()).expect("a request");
        client.send_request(request, true).expect("it is sent").0
    }

    async fn accept(io: tokio::io::DuplexStream) -> SendResponse<Bytes> {
        let mut connection: server::Connection<_, Bytes> =
            server::handshake(io).await.expect("a server");
        let accepted = connection.accept().await.expect("a stream");
        let (_, answer) = accepted.expect("a request");
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        answer
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, Cut> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn body(pieces: Pieces) -> impl Body<Data = Bytes, Error = Cut> + Unpin {
        StreamBody::new(stream::iter(pieces))
    }

    async fn all(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
        let mut bytes = vec![];
        while let Some(data) = stream.data().await.transpose()? {
            stream.flow_control().release_capacity(data.len())?;
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_body_arrives_with_its_trailers() {
        let (to_peer, mut at_peer) = streams().await;
        let trailers = HeaderMap::from_iter([("end".parse().unwrap(), HeaderValue::from(1))]);
        let pieces = vec![
            data("ab"),
            data(""),
            data("c"),
            Ok(Frame::trailers(trailers)),
        ];

        let sent = Sending::new(to_peer, body(pieces)).await;

        assert!(sent.is_ok());
        assert_eq!(all(&mut at_peer).await.expect("a body"), b"abc");
        let trailers = at_peer.trailers().await.expect("it ends");
        assert_eq!(trailers.expect("trailers")["end"], "1");
    }

    #[tokio::test]
    async fn a_body_that_knows_its_end_ends_with_its_last_piece() {
        let (to_peer, mut at_peer) = streams().await;
        let whole = http_body_util::Full::new(Bytes::from_static(b"abc"));

        let sent = Sending::new(to_peer, whole).await;

        assert!(sent.is_ok());
        assert_eq!(at_peer.data().await.expect("data").expect("of it"), "abc");
        assert!(at_peer.is_end_stream());
    }

    #[tokio::test]
    async fn a_body_that_fails_resets_the_stream_as_its_cause_was() {
        let (to_peer, mut at_peer) = streams().await;
        let pieces = vec![Err(Cut(Reason::ENHANCE_YOUR_CALM.into()))];

        let sent = Sending::new(to_peer, body(pieces)).await;

        assert!(matches!(sent, Err(SendError::Body(_))));
        let error = all(&mut at_peer).await.expect_err("it is cut off");
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    }

    #[tokio::test]
    async fn who_waits_for_more_of_a_body_hears_that_nobody_wants_it() {
        let (to_peer, at_peer) = streams().await;
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Cut>>());
        let sending = Sending::new(to_peer, silent);
        drop(at_peer);

        let sent = sending.await;

        assert!(matches!(sent, Err(SendError::Reset(Reason::CANCEL))));
    }

    #[tokio::test]
    async fn who_waits_for_room_hears_that_nobody_wants_it() {
        let (to_peer, at_peer) = streams().await;
        let endless = stream::repeat_with(|| data("0123456789abcdef"));
        let sending = tokio::spawn(Sending::new(to_peer, StreamBody::new(endless)));
        drop(at_peer);

        let sent = sending.await.expect("it ends");

        assert!(sent.is_err());
    }

    #[tokio::test]
    async fn no_more_is_read_than_a_peer_takes() {
        const PIECE: usize = 1024;
        const COUNT: usize = 1024;
        let (to_peer, mut at_peer) = streams().await;
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let pieces = (0..COUNT).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Cut>(Frame::data(Bytes::from_static(&[0; PIECE])))
        });
        let body = StreamBody::new(stream::iter(pieces));
        let mut sending = Box::pin(Sending::new(to_peer, body));

        // The window of a stream is as large as RFC 9113 says that it is at first, and nobody reads.
        for _ in 0..100 {
            let polled = poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
            assert!(polled.is_pending());
            tokio::task::yield_now().await;
        }
        let bytes = read.load(Ordering::Relaxed) * PIECE;
        assert!(bytes <= 65_535 + MAX_UNASKED + 2 * PIECE, "{bytes}");

        let (sent, received) = tokio::join!(sending, all(&mut at_peer));
        assert!(sent.is_ok());
        assert_eq!(received.expect("a body").len(), COUNT * PIECE);
    }
}
