//! HTTP/1.1 with a client: one request after the other, each answered before the next is looked at.
//!
//! All of it happens in the connection's task: a head is read, its request is answered, the response is written. While a
//! connection lies idle it holds no buffer, and nothing that only an exchange needs.

mod body;
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::http) mod fuzzing;
mod line;
mod request;
mod response;
mod switch;
mod writer;

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use tokio::io::{AsyncRead, AsyncWrite};

use self::body::Http1Body;
pub(super) use self::line::{Options, SharedLine, over};
use self::request::{BodyLength, RequestHead};
use self::response::{Asked, Style};
use self::writer::Writer;
use super::error::ServeError;
use super::switch::Switch;
use crate::http1::malformed::Malformed;
use crate::http1::maps;
use crate::http1::sending::{Framing, Sending};
use crate::turn::give_way;
use crate::upstream::body::client::ClientBody;

/// What a client's connection can be.
pub(super) trait Client: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Client for IO {}

/// What becomes of a connection after an exchange.
enum Next {
    Request,
    End,
    /// It is that of another protocol now.
    Switched,
}

/// Serves a connection to its end.
///
/// # Errors
/// The client did not keep to the protocol, or went away in the middle of it, or a response did not come to its end.
pub(super) async fn serve<IO, A, F, B>(line: &SharedLine<IO>, answer: A) -> Result<(), ServeError>
where
    IO: Client,
    A: Fn(Box<Request<ClientBody>>) -> F,
    F: Future<Output = Result<Box<Response<B>>, Infallible>>,
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    let _closed = Closed(line);
    loop {
        let head = match poll_fn(|context| line.lock().poll_head(context)).await {
            Ok(Some(head)) => head,
            Ok(None) => break,
            Err(error) => {
                if let Some(status) = refusal(&error) {
                    Box::pin(refuse(line, status)).await?;
                }
                return Err(error);
            }
        };
        // Boxed: between two requests a connection has no room for one. The box comes first, or all of it would be copied.
        let room = Box::new_uninit();
        let exchanged = Box::into_pin(Box::write(room, exchange(line, head, &answer)));
        match exchanged.await? {
            Next::Request => {}
            Next::End => break,
            Next::Switched => return Ok(()),
        }
    }
    shut_down(line).await
}

/// A connection that is no longer served: whoever still reads from it finds its end.
struct Closed<'a, IO>(&'a SharedLine<IO>);

impl<IO> Drop for Closed<'_, IO> {
    fn drop(&mut self) {
        self.0.lock().close();
    }
}

/// Says the end of what is said.
async fn shut_down<IO: Client>(line: &SharedLine<IO>) -> Result<(), ServeError> {
    let ended = poll_fn(|context| Pin::new(&mut Writer(line)).poll_shutdown(context));
    ended.await.map_err(ServeError::Lost)
}

async fn exchange<IO, A, F, B>(
    line: &SharedLine<IO>,
    head: RequestHead,
    answer: &A,
) -> Result<Next, ServeError>
where
    IO: Client,
    A: Fn(Box<Request<ClientBody>>) -> F,
    F: Future<Output = Result<Box<Response<B>>, Infallible>>,
    B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
{
    let asked = Asked::by(&head);
    let request = begin(line, head);
    let response = {
        let mut answering = pin!(answer(request));
        watched(line, |context| {
            let Ok(response) = ready!(answering.as_mut().poll(context));
            Poll::Ready(Ok(response))
        })
        .await?
    };
    let (mut sending, next) = respond(line, response.into_parts(), asked);
    give_way().await;
    let sent = watched(line, |context| {
        let sent = sending.poll(context, &mut Writer(line));
        sent.map_err(ServeError::from)
    });
    sent.await?;
    drop(sending);
    // Once no more of the request is read.
    poll_fn(|context| {
        let mut line = line.lock();
        ready!(line.poll_request_over(context));
        Poll::Ready(Ok(match next {
            Next::Switched => {
                line.switch();
                Next::Switched
            }
            Next::Request if line.keeps_alive() => Next::Request,
            Next::Request | Next::End => Next::End,
        }))
    })
    .await
}

/// The response as it is to be written, and what follows it as far as it says.
fn respond<IO, B>(
    line: &SharedLine<IO>,
    (parts, body): (Parts, B),
    asked: Asked,
) -> (Sending<B>, Next)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut line = line.lock();
    let style = Style {
        keeps_alive: line.keeps_alive(),
        names: line.options.names,
    };
    let preceding = line.begin_response();
    drop(line);
    let answered = response::head(&parts, &body, asked, style);
    maps::spare(parts.headers);
    let head = match preceding.is_empty() {
        true => answered.head,
        false => [preceding, &answered.head].concat().into(),
    };
    let next = match (answered.switches, answered.is_last) {
        (true, _) => Next::Switched,
        (false, true) => Next::End,
        (false, false) => Next::Request,
    };
    let sending = Sending::new(head, answered.framing, body);
    (sending, next)
}

/// What comes of a part of an exchange, unless its client goes while it is waited for. Then the connection is closed at
/// once, before that part is: it has ended within the request.
async fn watched<IO: Client, T>(
    line: &SharedLine<IO>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, ServeError>>,
) -> Result<T, ServeError> {
    let watched = poll_fn(|context| {
        let polled = poll(context);
        if polled.is_pending() {
            // Afterwards: all of the request may have been read by now.
            line.lock().look_at_client(context)?;
        }
        polled
    });
    watched.await.inspect_err(|_| line.lock().close())
}

/// The request, whose body is here already or is still to come.
fn begin<IO: Client>(line: &SharedLine<IO>, head: RequestHead) -> Box<Request<ClientBody>> {
    let mut held = line.lock();
    held.begin(&head);
    let body = match head.length {
        BodyLength::Known(0) => ClientBody::Empty,
        BodyLength::Known(length) => match held.take_body(length) {
            Some(body) => ClientBody::Whole(body),
            None => Http1Body::of_length(line, length),
        },
        BodyLength::Chunked => Http1Body::chunked(line, held.options.limits),
    };
    drop(held);
    let mut request = head.request;
    *request.body_mut() = body;
    if head.asks_for_upgrade {
        request.extensions_mut().insert(Switch::of(line.clone()));
    }
    request
}

/// How a head is answered that is none. Who speaks HTTP/2 would not understand it.
fn refusal(error: &ServeError) -> Option<StatusCode> {
    match error {
        ServeError::Malformed(Malformed::Http2) => None,
        ServeError::Malformed(Malformed::LargeHead { .. } | Malformed::ManyHeaders { .. }) => {
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        }
        ServeError::Malformed(Malformed::LongTarget) => Some(StatusCode::URI_TOO_LONG),
        ServeError::Malformed(_) => Some(StatusCode::BAD_REQUEST),
        _ => None,
    }
}

/// Answers what is no request.
async fn refuse<IO: Client>(line: &SharedLine<IO>, status: StatusCode) -> Result<(), ServeError> {
    let mut response = Response::new(Empty::<Bytes>::new());
    *response.status_mut() = status;
    let (parts, body) = response.into_parts();
    let style = Style {
        keeps_alive: false,
        names: line.lock().options.names,
    };
    let answered = response::head(&parts, &body, Asked::default(), style);
    let mut sending = Sending::new(answered.head, Framing::None, body);
    poll_fn(|context| sending.poll(context, &mut Writer(line))).await?;
    shut_down(line).await
}

#[cfg(test)]
mod tests;
