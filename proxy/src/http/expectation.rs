//! `Expect: 100-continue`: a client that waits to be asked for its body.
//!
//! It is asked when the body is first read. Where the upstream is to decide, its body is not read before the
//! upstream has asked for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use super::headers::Head;
use crate::present;
use crate::upstream::HttpVersion;
use crate::upstream::body::BodyError;
use crate::upstream::body::client::ClientBody;
use crate::upstream::http1::OnInformational;

/// An upstream that has not answered by then is one that does not know `Expect` (RFC 9110 §10.1.1): it gets the body.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a client waits to be asked for its body.
pub(super) fn is_of_continue(headers: &HeaderMap) -> bool {
    let expected = present::value(headers, &EXPECT);
    expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Leaves it to an upstream of HTTP/1.1 to ask for the body; in HTTP/2 nobody is asked.
pub(super) fn pass_on(head: &mut Head, body: ClientBody, version: HttpVersion) -> ClientBody {
    if !is_of_continue(&head.headers) {
        return body;
    }
    if version == HttpVersion::Http2 || body.is_end_stream() {
        head.headers.remove(EXPECT);
        return body;
    }
    let asked = Arc::new(Notify::new());
    let told = Arc::clone(&asked);
    let tell = move |status| {
        if status == StatusCode::CONTINUE {
            told.notify_one();
        }
    };
    head.extensions.insert(OnInformational(Arc::new(tell)));
    body.filtered(|inner| Awaited {
        inner,
        asked: Some(Box::pin(async move {
            let _ = tokio::time::timeout(PATIENCE, asked.notified()).await;
        })),
    })
}

/// A body that is not read before somebody asks for it.
struct Awaited {
    inner: ClientBody,
    asked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Body for Awaited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(asked) = &mut self.asked {
            std::task::ready!(asked.as_mut().poll(context));
            self.asked = None;
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
