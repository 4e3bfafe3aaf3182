//! Logs of containers, as text, followed where asked.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use weft_proto::weft::node::v1::{LogChunk, LogsRequest};

use crate::api::query::Query;
use crate::api::{Api, node};
use crate::refusal::Refusal;
use crate::store::Name;

/// A log on its way.
struct Lines {
    chunks: Streaming<LogChunk>,
    has_times: bool,
    bytes_left: Option<u64>,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// Serves the log of a pod's container.
pub(super) async fn serve(
    api: &Arc<Api>,
    name: &Name,
    request: Request,
) -> Result<Response, Refusal> {
    let query = Query::of(request.uri())?;
    let pod = super::find(api, name)?;
    let id = super::container(&pod, query.text("container"))?;
    if query.is_set_with_value("previous") {
        return Err(Refusal::BadRequest(
            "logs of ended containers are not kept apart: leave out previous".to_owned(),
        ));
    }
    let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        Refusal::TooManyRequests("too many watches and followed logs at once".to_owned())
    })?;
    let wanted = logs_request(id, &query)?;
    let bytes_left = query.number("limitBytes")?;
    let has_times = query.is_set_with_value("timestamps");
    let chunks = match wanted {
        None => return Ok(text(Body::empty())),
        Some(wanted) => {
            api.node
                .call(async move |mut client| client.logs(wanted).await)
                .await?
        }
    };
    let lines = Lines {
        chunks,
        has_times,
        bytes_left,
        shutdown: api.shutdown.clone(),
        _permit: permit,
    };
    let body = stream::unfold(lines, |mut lines| async {
        let line = lines.next().await?;
        Some((line, lines))
    });
    Ok(text(Body::from_stream(body)))
}

/// What is asked of the node; `None` where nothing is wanted of what is there, nor of what comes.
fn logs_request(id: String, query: &Query) -> Result<Option<LogsRequest>, Refusal> {
    let is_followed = query.is_set_with_value("follow");
    let now = Timestamp::now().as_second();
    let mut since = match (query.number("sinceSeconds")?, query.text("sinceTime")) {
        (Some(seconds), _) => now.saturating_sub(i64::try_from(seconds).unwrap_or(now)),
        (None, Some(time)) => time
            .parse::<Timestamp>()
            .map_err(|error| Refusal::BadRequest(format!("sinceTime: {error}")))?
            .as_second(),
        (None, None) => 0,
    };
    let tail = query.number("tailLines")?;
    if tail == Some(0) {
        if !is_followed {
            return Ok(None);
        }
        // To the node no tail means everything; what is wanted is only what comes.
        since = since.max(now);
    }
    Ok(Some(LogsRequest {
        id,
        follow: is_followed,
        tail: tail.map_or(0, |tail| u32::try_from(tail).unwrap_or(u32::MAX)),
        since,
    }))
}

impl Lines {
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        if self.bytes_left == Some(0) {
            return None;
        }
        let chunk = tokio::select! {
            () = self.shutdown.cancelled() => return None,
            chunk = self.chunks.message() => chunk,
        };
        match chunk {
            Ok(Some(chunk)) => Some(Ok(self.render(&chunk))),
            Ok(None) => None,
            Err(status) => {
                tracing::warn!(error = %node::refusal(&status), "a log broke off");
                Some(Err(status))
            }
        }
    }

    fn render(&mut self, chunk: &LogChunk) -> Bytes {
        let mut line = BytesMut::with_capacity(chunk.line.len() + 40);
        if self.has_times
            && let Ok(time) = Timestamp::from_nanosecond(i128::from(chunk.time))
        {
            line.put_slice(
                time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ ")
                    .to_string()
                    .as_bytes(),
            );
        }
        line.put_slice(&chunk.line);
        line.put_u8(b'\n');
        if let Some(left) = &mut self.bytes_left {
            line.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= line.len() as u64;
        }
        line.freeze()
    }
}

fn text(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
