//! HTTP/2 with a client: the connection's task takes requests as they come. Each is answered in a task of its own, which says
//! the response on the request's stream, and gives up what it does where the client resets that.

mod tunnel;

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, DATE, TE};
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;

use self::tunnel::Tunnel;
use super::date;
use super::error::ServeError;
use super::http1::Client;
use crate::clock::{self, InTurns};
use crate::config::http::Http2Options;
use crate::gather::{Gathered, Turns};
use crate::hop_by_hop;
use crate::http1::head::content_length;
use crate::http2::keepalive::Keepalive;
use crate::http2::receiving::Receiving;
use crate::http2::sending::Sending;
use crate::present;
use crate::upstream::body::client::ClientBody;

/// So many streams may be open at a time where nothing is said.
const MAX_STREAMS: u32 = 200;
/// So many streams may be reset for what their client did wrong, before the connection is given up.
const MAX_ERRORS: usize = 1024;
/// What a stream may have written that the client has not taken.
const SEND_BUFFER_BYTES: usize = 400 * 1024;

/// Who answers the requests of a connection.
pub(super) trait Answer: Send + Sync + 'static {
    /// What is answered.
    type Body: Body<Data = Bytes, Error: Error + Send + 'static> + Unpin + Send;

    fn answer(
        &self,
        request: Box<Request<ClientBody>>,
    ) -> impl Future<Output = Box<Response<Self::Body>>> + Send;
}

/// A request, and how it is answered.
type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// A connection that is served.
pub(super) struct Served<IO: Client, A> {
    state: State<IO>,
    turns: Turns,
    options: Http2Options,
    answer: Arc<A>,
    /// Whether no request is to be taken but those that are on their way.
    is_finishing: bool,
}

enum State<IO: Client> {
    Greeting(Box<server::Handshake<Gathered<IO>, Bytes>>),
    Open(Box<Open<IO>>),
}

struct Open<IO: Client> {
    connection: server::Connection<Gathered<IO>, Bytes>,
    keepalive: Option<Keepalive>,
    /// Whether the client has not answered in time.
    is_silent: bool,
}

/// Serves a connection on which nothing was said yet.
pub(super) fn serve<IO: Client, A: Answer>(
    io: IO,
    options: &Http2Options,
    max_header_bytes: u32,
    answer: A,
) -> Served<IO, A> {
    let (io, turns) = Gathered::over(io);
    let mut builder = builder(options);
    builder.max_header_list_size(max_header_bytes);
    Served {
        state: State::Greeting(Box::new(builder.handshake(io))),
        turns,
        options: options.clone(),
        answer: Arc::new(answer),
        is_finishing: false,
    }
}

fn builder(options: &Http2Options) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(options.stream_window())
        .initial_connection_window_size(options.connection_window())
        .max_concurrent_streams(options.max_concurrent_streams.unwrap_or(MAX_STREAMS))
        .max_local_error_reset_streams(Some(MAX_ERRORS))
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    if options.allows_connect {
        builder.enable_connect_protocol();
    }
    builder
}

impl<IO: Client, A: Answer> Served<IO, A> {
    /// Tells the client that the connection ends: requests that are on their way are answered.
    pub(super) fn finish(&mut self) {
        self.is_finishing = true;
        if let State::Open(open) = &mut self.state {
            open.connection.graceful_shutdown();
        }
    }
}

impl<IO: Client> State<IO> {
    /// The connection, which begins as soon as its client has greeted.
    fn poll_open(
        &mut self,
        context: &mut Context<'_>,
        begin: impl FnOnce(server::Connection<Gathered<IO>, Bytes>) -> Open<IO>,
    ) -> Poll<Result<&mut Open<IO>, ServeError>> {
        if let State::Greeting(handshake) = self {
            let connection = ready!(Pin::new(&mut **handshake).poll(context))?;
            *self = State::Open(Box::new(begin(connection)));
        }
        match self {
            State::Open(open) => Poll::Ready(Ok(open)),
            State::Greeting(_) => Poll::Pending,
        }
    }
}

impl<IO: Client> Open<IO> {
    /// The next request; `None`: there are no more.
    fn poll_asked(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Asked, ServeError>>> {
        loop {
            match self.connection.poll_accept(context) {
                Poll::Ready(None) if self.is_silent => {
                    return Poll::Ready(Some(Err(ServeError::Silent)));
                }
                Poll::Ready(asked) => {
                    return Poll::Ready(asked.map(|asked| asked.map_err(ServeError::Http2)));
                }
                Poll::Pending => {}
            }
            let Some(keepalive) = &mut self.keepalive else {
                return Poll::Pending;
            };
            ready!(keepalive.poll_silence(context));
            self.keepalive = None;
            self.is_silent = true;
            self.connection.abrupt_shutdown(Reason::NO_ERROR);
        }
    }
}

impl<IO: Client, A: Answer> Future for Served<IO, A> {
    type Output = Result<(), ServeError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let begin = |mut connection: server::Connection<_, _>| {
            let pings = connection.ping_pong();
            if this.is_finishing {
                connection.graceful_shutdown();
            }
            Open {
                connection,
                keepalive: Keepalive::of(&this.options, pings, &this.turns),
                is_silent: false,
            }
        };
        let open = ready!(this.state.poll_open(context, begin))?;
        loop {
            let asked = match open.poll_asked(context) {
                Poll::Ready(Some(asked)) => asked,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    this.turns.end(context);
                    return Poll::Pending;
                }
            };
            let (request, respond) = asked?;
            // Boxed: the runtime moves what it spawns from place to place.
            let exchange = Box::pin(exchange(Arc::clone(&this.answer), request, respond));
            tokio::spawn(InTurns(exchange));
        }
    }
}

/// Answers a request.
async fn exchange<A: Answer>(
    answer: Arc<A>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (request, tunnel) = asked(request);
    let Some(response) = ({
        let answering = pin!(answer.answer(Box::new(request)));
        unless_reset(&mut respond, answering).await
    }) else {
        return;
    };
    let (mut parts, body) = response.into_parts();
    complete(&mut parts.headers, &body);
    let tunnel = tunnel.filter(|tunnel| parts.status.is_success() && tunnel.is_wanted());
    let is_all = tunnel.is_none() && body.is_end_stream();
    let stream = match respond.send_response(Response::from_parts(parts, ()), is_all) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a response cannot be sent");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    if let Some(tunnel) = tunnel {
        tunnel.begin(stream);
    } else if !is_all && let Err(error) = Sending::new(stream, body).await {
        tracing::debug!(%error, "a response was not sent to its end");
    }
}

/// The request as it is to be answered, and the tunnel that it asks for.
fn asked(request: Request<RecvStream>) -> (Request<ClientBody>, Option<Tunnel>) {
    if request.method() == Method::CONNECT {
        let (request, tunnel) = Tunnel::asked_by(request);
        return (request, Some(tunnel));
    }
    let length = match present::has(request.headers(), &CONTENT_LENGTH) {
        true => content_length(request.headers()).ok().flatten(),
        false => None,
    };
    let request = request.map(|stream| {
        let body = Receiving::new(stream, length);
        match body.is_end_stream() {
            true => ClientBody::Empty,
            false => ClientBody::Http2(body),
        }
    });
    (request, None)
}

/// What comes of an exchange, unless its client resets the stream while it is waited for.
async fn unless_reset<T>(
    respond: &mut SendResponse<Bytes>,
    mut answering: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|context| match answering.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => respond.poll_reset(context).map(|_| None),
    })
    .await
}

/// Makes headers those of a response of HTTP/2 (RFC 9113 §8.2.2), and adds what every response says.
fn complete<B: Body>(headers: &mut HeaderMap, body: &B) {
    hop_by_hop::end(headers);
    present::remove(headers, &TE);
    if !present::has(headers, &DATE) {
        headers.insert(DATE, date::header(clock::time_of_day()));
    }
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
        && !present::has(headers, &CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

#[cfg(test)]
mod tests;
