//! A body whose trailers somebody changes on the way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::config::filter::header_mutation::Change;

/// A body with changed trailers.
pub(super) struct WithTrailers<B> {
    pub(super) inner: B,
    /// What changes.
    pub(super) changes: Arc<[Change]>,
}

impl<B> Body for WithTrailers<B>
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
        Pin::new(&mut this.inner)
            .poll_frame(context)
            .map_ok(|mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    this.changes
                        .iter()
                        .for_each(|change| change.apply(trailers));
                }
                frame
            })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
