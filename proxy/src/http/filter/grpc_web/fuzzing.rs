//! What is fuzzed of bodies of gRPC-Web.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};

use super::body::{FromText, ToWeb};
use crate::fuzzing::Choices;

/// What comes of a text does not depend on how it is cut, and a body that becomes text can be had back.
pub(in crate::http::filter) fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let size = choices.below(16);
    let body = choices.rest();
    let decoded =
        |text: &[u8], size| collected(FromText::new(pieces(text, size), |error| error)).ok();
    let whole = decoded(body, usize::MAX);
    let cut = decoded(body, size);
    // Where the end is no base64, more or less of the beginning may have been passed on.
    assert_eq!(whole, cut);
    let text = collected(ToWeb::new(pieces(body, size), true)).expect("a body without errors");
    assert_eq!(decoded(&text, size).as_deref(), Some(body));
    let plain = collected(ToWeb::new(pieces(body, size), false)).expect("a body without errors");
    assert_eq!(plain, body);
}

/// A body in pieces of these sizes.
fn pieces(bytes: &[u8], size: usize) -> impl Body<Data = Bytes, Error = Arc<str>> + Unpin {
    let pieces: Vec<_> = bytes
        .chunks(size.max(1))
        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    StreamBody::new(futures_util::stream::iter(pieces))
}

fn collected<B>(body: B) -> Result<Bytes, Arc<str>>
where
    B: Body<Data = Bytes, Error = Arc<str>>,
{
    let collected = body.collect().now_or_never();
    let collected = collected.expect("bytes in memory are never waited for");
    collected.map(|body| body.to_bytes())
}
