//! Serving the requests of one connection until it ends, is idle for too long, has been used enough, or drains.

mod date;
mod error;
pub(in crate::http) mod http1;
mod http2;
mod lifespan;
mod seldom;
pub(in crate::http) mod switch;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::error::ServeError;
use self::lifespan::Use;
use self::seldom::Seldom;
use super::body::ResponseBody;
use super::exchange::exchange;
use super::metered::Metered;
use super::{HttpConnection, Spoken};
use crate::clock::InTurns;
use crate::config::http::HttpConfig;
use crate::config::overload::Action;
use crate::drain::Drain;
use crate::http2::shared;
use crate::telemetry::managers::{HttpEvent, ManagerStats};
use crate::upstream::HttpVersion;
use crate::upstream::body::client::ClientBody;

/// How long a connection that is to finish may be without a request; Envoy's default `drain_timeout`.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Serves a connection to its end.
///
/// # Errors
/// The client did not keep to the protocol, or went away in the middle of it.
pub async fn serve<IO>(
    io: IO,
    version: HttpVersion,
    connection: Arc<HttpConnection>,
    drain: Drain,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = Arc::clone(&connection.scene().service.config);
    let io = Metered::new(io, Arc::clone(&connection));
    let used = Use::limited(&config.lifespan, version, connection.stats());
    let turn = (drain, used);
    let result = match version {
        HttpVersion::Http1 => one_by_one(io, &connection, &config, turn).await,
        // Boxed: connections of HTTP/1.1, of which there are more, would hold the room for it.
        HttpVersion::Http2 => Box::pin(many(io, &connection, &config, turn)).await,
    };
    result.inspect_err(|error| count_error(error, connection.stats()))
}

/// HTTP/1.1.
async fn one_by_one<IO: http1::Client>(
    io: IO,
    connection: &Arc<HttpConnection>,
    config: &HttpConfig,
    (drain, used): (Drain, Option<Arc<Use>>),
) -> Result<(), ServeError> {
    let line = http1::over(io, http1::Options::of(config));
    let served = pin!(http1::serve(&line, |request| {
        answer(connection, (&drain, used.as_deref()), request)
    }));
    // Nothing but a response can tell the client that it is the last.
    let drained = pin!(drain.patience_over());
    let finished = pin!(finished(
        drained,
        used.clone(),
        connection,
        config.idle_timeout
    ));
    let finished = pin!(async {
        if used.is_none() {
            unanswering(&line).await;
        }
        Seldom::new(finished).await;
    });
    let served = pin!(InTurns(served));
    until(finished, served, connection, |_| line.lock().finish()).await
}

/// HTTP/2.
async fn many<IO: http1::Client>(
    io: IO,
    connection: &Arc<HttpConnection>,
    config: &HttpConfig,
    (drain, used): (Drain, Option<Arc<Use>>),
) -> Result<(), ServeError> {
    let answer = Answers {
        connection: Arc::clone(connection),
        drain: drain.clone(),
        used: used.clone(),
    };
    let (options, max_header_bytes) = match connection.spoken == Spoken::SHARED_HTTP1 {
        // What is too large for this proxy alone must not end the connection for all: it is answered.
        true => (
            &config.http2.shared(),
            config.max_header_bytes.max(shared::TAKEN),
        ),
        false => (&config.http2, config.max_header_bytes),
    };
    let mut served = http2::serve(io, options, max_header_bytes, answer);
    let drained = pin!(drain.last_call_over());
    let finished = pin!(finished(drained, used, connection, config.idle_timeout));
    let finished = pin!(Seldom::new(finished));
    let served = Pin::new(&mut served);
    until(finished, served, connection, |served| {
        served.get_mut().finish();
    })
    .await
}

/// Answers the requests of a connection of HTTP/2.
struct Answers {
    connection: Arc<HttpConnection>,
    drain: Drain,
    used: Option<Arc<Use>>,
}

impl http2::Answer for Answers {
    type Body = ResponseBody;

    async fn answer(&self, request: Box<Request<ClientBody>>) -> Box<Response<ResponseBody>> {
        let turn = (&self.drain, self.used.as_deref());
        let Ok(response) = pin!(answer(&self.connection, turn, request)).await;
        response
    }
}

/// Counts why a connection has ended, where its client is to blame.
fn count_error(error: &ServeError, stats: &ManagerStats) {
    if error.is_timeout() {
        stats.count(HttpEvent::HeadersTimeout);
    } else if error.is_of_protocol() {
        stats.count(HttpEvent::ProtocolError);
    }
}

async fn answer(
    connection: &Arc<HttpConnection>,
    (drain, used): (&Drain, Option<&Use>),
    mut request: Box<Request<ClientBody>>,
) -> Result<Box<Response<ResponseBody>>, Infallible> {
    if let Some(used) = used {
        used.begin_request();
    }
    let is_told = request.version() < Version::HTTP_2;
    let is_last = request.version() == Version::HTTP_10 && !wants_more(request.headers());
    let is_connect = request.method() == Method::CONNECT;
    if connection.spoken == Spoken::SHARED_HTTP1 {
        as_http1(&mut request);
    }
    let mut response = pin!(exchange(connection, request)).await?;
    let environment = &connection.environment;
    let is_used_up = used.is_some_and(|used| used.is_over());
    let is_short = environment.overload.is_taken(Action::DisableKeepalive)
        && connection.scene().service.config.heeds_overload;
    let is_failed = environment.is_failed.load(Ordering::Relaxed)
        && connection.scene().service.config.ends_when_failed;
    let is_tunnel = is_connect && response.status().is_success();
    let ends = is_last || is_used_up || is_short || is_failed || drain.is_started();
    let is_to_go = is_failed || drain.is_started();
    if is_to_go && !connection.is_drained.swap(true, Ordering::Relaxed) {
        connection.stats().count(HttpEvent::Drained);
    }
    if is_short && is_told {
        connection.stats().count(HttpEvent::KeepaliveDisabled);
    }
    if is_told && !is_tunnel && ends {
        announce_end(&mut response);
    } else if is_failed {
        connection.leave.notify_one();
    }
    Ok(response)
}

/// A request of HTTP/1.1 that has come over a shared connection, as it was before.
fn as_http1<B>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_11;
    let parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(host) = parts
        .authority
        .and_then(|host| HeaderValue::from_str(host.as_str()).ok())
    {
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() = parts.path_and_query.map(Uri::from).unwrap_or_default();
}

/// Whether a client of HTTP/1.0 asks for its connection to be kept.
fn wants_more(headers: &HeaderMap) -> bool {
    let connection = headers
        .get(CONNECTION)
        .and_then(|value| value.to_str().ok());
    let mut names = connection.unwrap_or_default().split(',').map(str::trim);
    names.any(|name| name.eq_ignore_ascii_case("keep-alive"))
}

/// Tells the client that this response is the connection's last; HTTP/2 has a frame for it. A connection that
/// switches protocols stays.
fn announce_end(response: &mut Response<ResponseBody>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Returns once no request is being answered. Before its first is over nobody looks for another end of a connection: many
/// a connection ends with that, and its response tells of a drain.
async fn unanswering<IO>(line: &http1::SharedLine<IO>) {
    // Whatever is done for a request wakes the task that asks.
    poll_fn(|_| match line.lock().is_answering() {
        true => Poll::Pending,
        false => Poll::Ready(()),
    })
    .await;
}

/// Returns when a connection is to finish: it drains, has been used enough, has been told to leave, or is idle.
async fn finished(
    drained: Pin<&mut impl Future<Output = ()>>,
    used: Option<Arc<Use>>,
    connection: &HttpConnection,
    idle_timeout: Option<Duration>,
) {
    let used_up = async {
        match used {
            Some(used) => used.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = drained => {}
        () = used_up => {}
        () = connection.leave.notified() => {}
        () = idle_for(connection, idle_timeout) => {
            connection.stats().count(HttpEvent::ConnectionIdle);
        }
    }
}

/// Drives a connection; asks it once to finish. Both are pinned by the caller: as values they would be in this function's
/// state twice.
async fn until<C, E>(
    finished: Pin<&mut impl Future<Output = ()>>,
    mut served: Pin<&mut C>,
    connection: &HttpConnection,
    finish: impl Fn(Pin<&mut C>),
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    tokio::select! {
        biased;
        result = served.as_mut() => return result,
        () = finished => {}
    }
    finish(served.as_mut());
    tokio::select! {
        result = served => result,
        () = abandoned(connection) => Ok(()),
    }
}

/// Returns once a connection that is to finish has had no request for a while: its client says nothing, or never ends
/// what it has begun to say, such as a head.
async fn abandoned(connection: &HttpConnection) {
    tokio::time::sleep(LAST_WORDS).await;
    idle_for(connection, Some(LAST_WORDS)).await;
}

/// Returns once the connection has been without a request for so long; never without a limit.
async fn idle_for(connection: &HttpConnection, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let overload = &connection.environment.overload;
    loop {
        let mut changed = pin!(overload.changed());
        let limit = match connection.scene().service.config.heeds_overload {
            true => overload.connection_idle(limit),
            false => limit,
        };
        let idle = Duration::from_millis(connection.idle_millis());
        if idle >= limit {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(limit - idle) => {}
            () = changed.as_mut() => {}
        }
    }
}
