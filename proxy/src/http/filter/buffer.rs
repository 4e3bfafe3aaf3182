//! Waiting for the whole of a request, before it goes on.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::Passing;
use crate::config::filter::buffer::BufferConfig;
use crate::http::failure::{Failure, LocalReply};
use crate::telemetry::managers::HttpEvent;
use crate::upstream::body::BodyError;
use crate::upstream::body::client::ClientBody;

/// No body is waited for longer without a byte, whatever the chain allows.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What has been read of a body.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// Its beginning, or all of it.
    pub(super) data: BytesMut,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) is_whole: bool,
}

/// Waits for the whole request, and refuses one that is too large.
pub(super) async fn request(
    config: &BufferConfig,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    if passing.body.is_end_stream() {
        return Ok(());
    }
    let read = read_ahead(passing, config.max_request_bytes).await?;
    if !read.is_whole {
        return Err(too_large());
    }
    let headers = &mut passing.head.headers;
    if !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(read.data.len()));
    }
    *passing.body = read.followed_by(ClientBody::Empty);
    Ok(())
}

pub(super) fn too_large() -> Failure {
    Failure::Answered(Box::new(LocalReply {
        body: Bytes::from_static(b"Payload Too Large"),
        // The rest of it is not read.
        headers: vec![(header::CONNECTION, HeaderValue::from_static("close"))],
        event: Some(HttpEvent::BodyTooLarge),
        ..LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, "request_payload_too_large")
    }))
}

/// Reads a body until it ends or more than `max_bytes` are here; the rest stays where it is.
pub(super) async fn read_ahead(
    passing: &mut Passing<'_>,
    max_bytes: usize,
) -> Result<ReadAhead, Failure> {
    let config = &passing.scene.service.config;
    let idle = config.stream_idle_timeout.unwrap_or(PATIENCE);
    let begun = Instant::now();
    let whole_by = config.request_timeout.map(|limit| (begun + limit, limit));
    let mut read = ReadAhead {
        data: BytesMut::new(),
        trailers: None,
        is_whole: passing.body.is_end_stream(),
    };
    while !read.is_whole && read.data.len() <= max_bytes {
        let idle_by = Instant::now() + idle;
        let (until, failure) = match whole_by {
            Some((by, limit)) if by < idle_by => (by, Failure::RequestTimeout { limit }),
            _ => {
                let (limit, has_request) = (idle, false);
                (idle_by, Failure::Idle { limit, has_request })
            }
        };
        let frame = poll_fn(|context| Pin::new(&mut *passing.body).poll_frame(context));
        match timeout_at(until, frame).await {
            Err(_) => return Err(failure),
            Ok(Some(Err(error))) => return Err(cut_off(&error)),
            Ok(None) => read.is_whole = true,
            Ok(Some(Ok(frame))) => {
                read.take(frame);
                read.is_whole = passing.body.is_end_stream();
            }
        }
    }
    read.is_whole &= read.data.len() <= max_bytes;
    Ok(read)
}

/// The client went away in the middle of its body, or sent what is none.
fn cut_off(error: &BodyError) -> Failure {
    match error {
        BodyError::Downstream(error) if error.is_malformed() => Failure::RequestBody,
        _ => Failure::ClientGone,
    }
}

impl ReadAhead {
    fn take(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => self.data.extend_from_slice(&data),
            Err(other) => self.trailers = other.into_trailers().ok(),
        }
    }

    /// As a body again, with what has not been read after it.
    pub(super) fn followed_by(self, rest: ClientBody) -> ClientBody {
        let mut frames = VecDeque::new();
        if !self.data.is_empty() {
            frames.push_back(Frame::data(self.data.freeze()));
        }
        frames.extend(self.trailers.map(Frame::trailers));
        rest.filtered(|rest| Preceded { frames, rest })
    }
}

/// A body with frames before it.
struct Preceded {
    frames: VecDeque<Frame<Bytes>>,
    rest: ClientBody,
}

impl Body for Preceded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut this.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.frames.iter().filter_map(Frame::data_ref);
        let read: u64 = read.map(|data| data.len() as u64).sum();
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + read),
            None => SizeHint::default(),
        }
    }
}
