//! Connections that keep names of headers as they came.
//!
//! They are hyper's: it alone knows how the server's side has read the names of a request, and will write those of a
//! response, in a type of its own that nobody else can name.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method};
use http_body::Body;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;

use super::{OnInformational, Options};
use crate::upstream::body::RequestBody;
use crate::upstream::io::UpstreamIo;

/// Among the extensions of a request whose names are to be sent as they came.
#[derive(Debug, Clone, Copy)]
pub struct SpelledNames;

/// The least that hyper buffers of a connection.
const MIN_BUFFER_BYTES: usize = 8 * 1024;

/// Speaks HTTP on a connection. It is driven by a task of its own, which ends with it.
pub(super) async fn over(
    io: UpstreamIo,
    options: &Options,
) -> hyper::Result<SendRequest<RequestBody>> {
    let mut builder = Builder::new();
    let max_buffer = options.max_buffer.max(MIN_BUFFER_BYTES);
    builder
        .max_header_size(options.limits.max_bytes)
        .max_headers(options.limits.max_headers)
        .max_buf_size(max_buffer.max(options.limits.max_bytes))
        .preserve_header_case(options.names.are_preserved())
        .title_case_headers(options.names.are_proper());
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// A request as hyper is to send it.
pub(super) fn request(mut request: http::Request<RequestBody>) -> http::Request<RequestBody> {
    if let Some(told) = request.extensions_mut().remove::<OnInformational>() {
        hyper::ext::on_informational(&mut request, move |response| (told.0)(response.status()));
    }
    in_chunks(request)
}

/// A body of a length that nobody knows is chunked in HTTP/1.1, whatever the method is (RFC 9112 §6.3); hyper leaves
/// it out of GET and HEAD unless it is told.
fn in_chunks(mut request: http::Request<RequestBody>) -> http::Request<RequestBody> {
    let has_body = matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.body().is_end_stream()
        && request.body().size_hint().exact().is_none();
    let headers = request.headers_mut();
    if has_body && !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(UPGRADE) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request
}
