//! Request bodies on their way upstream: counted, copied where they are mirrored, and kept for another try
//! while they are small.

pub mod client;
pub mod meter;
pub mod replay;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use self::client::ClientBody;
use self::meter::{BodyMeter, Copied};
use self::replay::Replay;
use crate::http1::malformed::Malformed;

/// A request body of one try.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// No more than why there is none.
    Failed(Option<BodyError>),
    /// From here.
    Full(Option<Bytes>),
    /// From the client, who has not said how much it is: all of it has come.
    Whole(Option<Bytes>),
    /// Read once.
    Once {
        /// From the client.
        incoming: ClientBody,
        /// What it comes to.
        meter: Arc<BodyMeter>,
    },
    /// Read again where it must be.
    Replayed(Replay),
    /// Pieces that somebody else hands over: a copy of what another request reads, or what goes through a tunnel.
    Copy(mpsc::Receiver<Copied>),
    /// One that was begun to be read for a connection on which nothing could be written. It is counted already.
    Begun {
        /// What was read of it.
        first: Option<Bytes>,
        /// What follows.
        rest: Box<RequestBody>,
    },
}

/// Whether nothing follows a frame: whoever gets trailers looks no further.
fn is_last(frame: Option<&Result<Frame<Bytes>, BodyError>>, rest: &ClientBody) -> bool {
    match frame {
        Some(Ok(frame)) => frame.is_trailers() || rest.is_end_stream(),
        Some(Err(_)) => false,
        None => true,
    }
}

/// Why no more of a body comes from a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its stream of HTTP/2 was reset, or is no more.
    #[error("its stream has ended early")]
    Http2(#[from] h2::Error),
    /// What it has sent is no body.
    #[error("the body is no HTTP/1.1")]
    Malformed(#[from] Malformed),
    /// It has closed the connection.
    #[error("the connection was closed before the end of the body")]
    CutOff,
    /// The connection is broken.
    #[error("the connection was lost")]
    Lost(#[from] io::Error),
}

impl ClientError {
    /// Whether the body is no good, rather than cut off.
    pub fn is_malformed(&self) -> bool {
        matches!(self, ClientError::Malformed(_))
    }
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client's connection.
    #[error("reading the request body")]
    Downstream(#[source] ClientError),
    /// A filter cannot go on with it.
    #[error("{0}")]
    Filter(Arc<str>),
    /// The client has sent what a filter cannot read.
    #[error("{0}")]
    Unreadable(Arc<str>),
    /// Another try reads it now.
    #[error("the request is being tried elsewhere")]
    TakenOver,
    /// A copy has not kept up, or the client of a tunnel is lost.
    #[error("the body is not whole")]
    NotWhole,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Failed(error) => Poll::Ready(error.take().map(Err)),
            RequestBody::Full(bytes) | RequestBody::Whole(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            RequestBody::Once { incoming, meter } => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(context));
                match &frame {
                    Some(Ok(frame)) => meter.count(frame),
                    Some(Err(error)) => meter.fail(error),
                    None => {}
                }
                if is_last(frame.as_ref(), incoming) {
                    meter.end();
                }
                Poll::Ready(frame)
            }
            RequestBody::Replayed(replay) => replay.poll_frame(context),
            RequestBody::Copy(pieces) => Poll::Ready(match ready!(pieces.poll_recv(context)) {
                Some(Copied::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Copied::End) => {
                    *this = RequestBody::Empty;
                    None
                }
                None => Some(Err(BodyError::NotWhole)),
            }),
            RequestBody::Begun { first, rest } => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Pin::new(&mut **rest).poll_frame(context),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Full(bytes) | RequestBody::Whole(bytes) => bytes.is_none(),
            RequestBody::Once { incoming, .. } => incoming.is_end_stream(),
            RequestBody::Replayed(replay) => replay.is_end_stream(),
            RequestBody::Copy(_) | RequestBody::Failed(_) => false,
            RequestBody::Begun { first, rest } => first.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            RequestBody::Once { incoming, .. } => incoming.size_hint(),
            RequestBody::Replayed(replay) => replay.size_hint(),
            RequestBody::Copy(_) | RequestBody::Whole(_) | RequestBody::Failed(_) => {
                SizeHint::default()
            }
            RequestBody::Begun { first, rest } => match rest.size_hint().exact() {
                Some(bytes) => {
                    let first = first.as_ref().map_or(0, |bytes| bytes.len() as u64);
                    SizeHint::with_exact(first + bytes)
                }
                None => SizeHint::default(),
            },
        }
    }
}
