//! An HTTP/1.1 connection to an endpoint: one request at a time.
//!
//! No task belongs to it: whoever waits for a response drives the request and reads the response, and while it lies
//! idle nobody does. Only the rest of a request whose response has begun early is written by a task: it ends with the
//! loan of the connection, or, where all of the response has come, with the request.

mod body;
mod error;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod head;
mod line;
mod request;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http::{Request, Response};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

pub use self::body::Http1Body;
pub use self::error::Http1Error;
pub use self::exchange::OnInformational;
use self::exchange::{Exchange, Failed};
use self::head::{BodyLength, ResponseHead};
use self::line::{Line, SharedLine};
use super::body::RequestBody;
use super::guise::Guise;
use super::io::{Mark, Seen, UpstreamIo, Watch};
use super::lease::{SendFailure, Wanted};
use super::response::UpstreamBody;
use crate::cluster::connections::ConnectionPermit;
use crate::config::cluster::{ClusterConfig, ConnectionBounds};
use crate::config::http1::HeaderNames;
use crate::http1::chunked::Chunked;
use crate::http1::decoder::Decoder;
use crate::http1::head::HeadLimits;
use crate::http1::reading::most_at_once;
use crate::http1::sending::Sending;
use crate::telemetry::session::Session;
use crate::turn::give_way;

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(super) struct Http1Connection {
    line: SharedLine,
    /// Writes the rest of a request whose response has begun.
    rest: Option<Rest>,
    /// Whether a request uses it: 1, or 0.
    users: Arc<AtomicU32>,
    /// How many requests it has carried, the current one included.
    pub(super) requests: u32,
    pub(super) idle_since: Instant,
    /// Whom it shows: only requests that would show the same may use it.
    pub(super) guise: Guise,
    made_at: Instant,
    watch: Watch,
}

/// How it is spoken.
#[derive(Debug, Clone, Copy)]
struct Options {
    limits: HeadLimits,
    /// The most that is read of a body at once.
    max_buffer: usize,
    names: HeaderNames,
}

impl Options {
    fn of(config: &ClusterConfig) -> Self {
        let ConnectionBounds {
            max_headers,
            max_header_bytes,
            buffer_bytes,
        } = config.bounds;
        Options {
            limits: HeadLimits {
                max_headers,
                max_bytes: max_header_bytes as usize,
            },
            max_buffer: most_at_once(buffer_bytes),
            names: config.http1.names,
        }
    }
}

impl Http1Connection {
    /// Speaks HTTP on a connection. The socket holds the permit.
    pub(super) fn over(
        mut io: UpstreamIo,
        permit: ConnectionPermit,
        config: &ClusterConfig,
    ) -> Self {
        let watch = io.watch();
        let users = Arc::default();
        io.hold(permit);
        io.used_by(&users);
        let line = Line::over(io, Options::of(config));
        Http1Connection {
            line: Arc::new(Mutex::new(line)),
            rest: None,
            users,
            requests: 0,
            idle_since: Instant::now(),
            guise: Guise::default(),
            made_at: Instant::now(),
            watch,
        }
    }

    /// Another request uses it.
    pub(super) fn begin(&mut self) {
        self.requests += 1;
        self.users.store(1, Ordering::Relaxed);
    }

    /// The request is over.
    pub(super) fn end(&mut self) {
        self.users.store(0, Ordering::Relaxed);
        self.rest = None;
    }

    /// Whether it has been in use for longer than it may be.
    pub(super) fn is_too_old(&self, now: Instant, longest: Option<Duration>) -> bool {
        longest.is_some_and(|longest| now.saturating_duration_since(self.made_at) >= longest)
    }

    /// What has been written to it so far; `None`: it is closed.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.watch.mark()
    }

    /// Our own end of it, where that is known.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.watch.local
    }

    /// Its TLS.
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.watch.session.as_ref()
    }

    /// Whether it will not carry another request, as far as we know: what its exchange has left of it.
    pub(super) fn is_closed(&self) -> bool {
        !self.line.lock().is_free()
    }

    /// Whether it cannot carry a request: its peer has closed it while it lay idle.
    pub(super) fn is_abandoned(&self) -> bool {
        match self.watch.look() {
            Seen::Over => true,
            // Nobody is woken: whoever lends it looks again.
            Seen::Something => {
                let mut context = Context::from_waker(Waker::noop());
                !self.line.lock().poll_idle(&mut context)
            }
            Seen::Quiet => false,
        }
    }

    /// It has lain idle for some time.
    pub(super) fn rest(&self) {
        self.line.lock().forget_reader();
    }

    /// Sends the request, until the head of the response is here.
    pub(super) async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
        wanted: Wanted,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        send(Arc::clone(&self.line), &mut self.rest, (request, wanted)).await
    }
}

async fn send(
    line: SharedLine,
    rest: &mut Option<Rest>,
    (request, wanted): (&mut Request<RequestBody>, Wanted),
) -> Result<Response<UpstreamBody>, SendFailure> {
    let mut exchange = Exchange::begin(request, wanted, &mut line.lock());
    give_way().await;
    let answered = poll_fn(|context| {
        let mut held = line.lock();
        let head = ready!(exchange.poll(context, &mut held));
        Poll::Ready(head.and_then(|head| {
            let length = head::body_length(&head.response, exchange.method())?;
            Ok(responded(&line, &mut held, head, length))
        }))
    });
    let response = match answered.await {
        Ok(response) => response,
        Err(error) => return Err(exchange.failed(error).into()),
    };
    if let Some(sending) = exchange.sending.take() {
        *rest = Some(Rest::write(sending, line));
    }
    Ok(response)
}

/// Writes what is left of a request, while its response is read or not.
///
/// Whoever gives the connection up before the response has ended gives the request up. One that was answered in full is
/// passed on to its end, which its client sets: some read no answer before they have said all.
#[derive(Debug)]
struct Rest {
    task: JoinHandle<()>,
    line: SharedLine,
}

impl Rest {
    fn write(mut sending: Sending<RequestBody>, line: SharedLine) -> Self {
        let own = Arc::clone(&line);
        let task = tokio::spawn(async move {
            let sent = poll_fn(|context| {
                let mut line = own.lock();
                match line.io() {
                    Ok(io) => sending.poll(context, io).map_err(Http1Error::from),
                    Err(error) => Poll::Ready(Err(error)),
                }
            });
            let sent = sent.await;
            let mut line = own.lock();
            match sent {
                Ok(()) => line.end_writing(),
                // The peer does not read on: what it answers may be whole all the same.
                Err(Http1Error::Lost { .. }) => line.wear_out(),
                Err(error) => line.fail(error),
            }
        });
        Rest { task, line }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.line.lock().is_reading() {
            self.task.abort();
        }
    }
}

/// The response, whose body is here already or is still to come.
fn responded(
    line: &SharedLine,
    held: &mut Line,
    head: ResponseHead,
    length: BodyLength,
) -> Response<UpstreamBody> {
    let ResponseHead {
        response,
        keeps_alive,
    } = head;
    if !keeps_alive {
        held.wear_out();
    }
    let limits = held.options.limits;
    let here = held.reading.unread.len() as u64;
    let body = match length {
        BodyLength::Known(length) if length <= here => {
            let bytes = held
                .reading
                .unread
                .split_to(usize::try_from(length).unwrap_or(usize::MAX));
            held.end_reading();
            Some(bytes)
        }
        _ => None,
    };
    let line = || Arc::clone(line);
    let body = match (body, length) {
        (Some(bytes), _) => Http1Body::whole(bytes),
        (None, BodyLength::Known(length)) => Http1Body::coming(line(), Decoder::Length(length)),
        (None, BodyLength::Chunked) => {
            let chunked = Decoder::Chunked(Box::new(Chunked::new(limits)));
            Http1Body::coming(line(), chunked)
        }
        (None, BodyLength::UntilClose) => Http1Body::coming(line(), Decoder::UntilClose),
        (None, BodyLength::Switched) => Http1Body::switched(line()),
    };
    response.map(|()| UpstreamBody::Http1(body))
}

impl From<Failed> for SendFailure {
    fn from(failed: Failed) -> Self {
        SendFailure {
            error: failed.error.into(),
            is_unsent: failed.is_unsent,
        }
    }
}

#[cfg(test)]
mod tests;
