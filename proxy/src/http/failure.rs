//! What can become of a request instead of a response, and what its caller is told.

mod details;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

pub(super) use self::details::after_response;
use crate::cluster::NoEndpoint;
use crate::cluster::breaker::Overflow;
use crate::telemetry::managers::HttpEvent;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::ConnectFailure;
use crate::upstream::error::ExchangeError;
use crate::upstream::http1::Http1Error;

/// Why there is no response from upstream.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("listener {listener} has no routes yet: the control plane has not sent them")]
    NoRoutesYet { listener: Arc<str> },
    #[error("no route for {authority}{path}")]
    NoRoute { authority: Box<str>, path: Box<str> },
    #[error("the route leads to cluster {cluster}, which does not exist")]
    NoCluster {
        cluster: Arc<str>,
        status: StatusCode,
    },
    #[error("cluster {cluster} has no endpoint for this request")]
    NoEndpoint {
        cluster: Arc<str>,
        source: NoEndpoint,
    },
    #[error("circuit breaker of cluster {cluster}")]
    Overflow { cluster: Arc<str>, source: Overflow },
    #[error("cluster {cluster} cannot be reached")]
    Connect {
        cluster: Arc<str>,
        source: ConnectFailure,
    },
    #[error("cluster {cluster}: {address} ended the request without a response")]
    Reset {
        cluster: Arc<str>,
        address: SocketAddr,
        how: Reset,
        source: ExchangeError,
    },
    #[error("cluster {cluster}: the response of {address} is malformed: {what}")]
    Malformed {
        cluster: Arc<str>,
        address: SocketAddr,
        what: &'static str,
    },
    #[error("the body of the request is malformed")]
    RequestBody,
    #[error("the client has gone before its request came to an end")]
    ClientGone,
    #[error("the proxy is overloaded: it is short of what its overload manager watches")]
    Overloaded,
    #[error("cluster {cluster}: no answer within {limit:?}, the time-out of a try")]
    PerTryTimeout { cluster: Arc<str>, limit: Duration },
    #[error("cluster {cluster}: nothing was said for {limit:?}, the idle time-out of a try")]
    PerTryIdle { cluster: Arc<str>, limit: Duration },
    #[error("no answer from upstream within {limit:?}, the route's time-out")]
    Timeout { limit: Duration },
    #[error("nothing was said for {limit:?}, the idle time-out")]
    Idle { limit: Duration, has_request: bool },
    #[error("the request took longer than {limit:?}, the longest that a stream may take")]
    Duration { limit: Duration, has_request: bool },
    #[error("the request had not ended after {limit:?}, the request time-out")]
    RequestTimeout { limit: Duration },
    #[error("{}", .0.reason())]
    Answered(Box<LocalReply>),
    #[error("{authority:?} is no host that a request could be sent to")]
    Authority { authority: Box<str> },
    #[error("the rewritten path {path:?} is not valid")]
    Rewrite { path: Box<str> },
}

/// What a filter answers in the upstream's place.
#[derive(Debug)]
pub(super) struct LocalReply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// In place of what else would be said by their names.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What a gRPC caller is told in place of what corresponds to the status.
    pub(super) grpc_status: Option<u32>,
    pub(super) flag: ResponseFlags,
    /// Why, in Envoy's words.
    pub(super) details: Arc<str>,
    /// Why, for people, where that says more.
    pub(super) reason: Option<&'static str>,
    /// What the connection manager counts it as, if anything.
    pub(super) event: Option<HttpEvent>,
    /// Whether it stays as it is, whatever the configuration makes of such answers.
    pub(super) is_final: bool,
}

impl LocalReply {
    /// Without a body, headers or a flag.
    pub(super) fn new(status: StatusCode, details: &str) -> Self {
        LocalReply {
            status,
            body: Bytes::new(),
            headers: vec![],
            grpc_status: None,
            flag: ResponseFlags::default(),
            details: details.into(),
            reason: None,
            event: None,
            is_final: false,
        }
    }

    /// Explained to people.
    pub(super) fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    fn reason(&self) -> &str {
        self.reason.unwrap_or(&self.details)
    }
}

/// How a request was ended without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// Before any of it was sent.
    BeforeRequest,
    /// The peer says that it has not looked at it (HTTP/2 REFUSED_STREAM).
    Refused,
    /// The stream, after it was sent.
    Stream,
    /// The connection, after it was sent.
    Connection,
    /// What came back is no HTTP.
    Protocol,
}

impl Reset {
    /// From what is said of the exchange.
    pub(super) fn of(error: &ExchangeError, is_unsent: bool) -> Self {
        match error {
            _ if is_unsent => Reset::BeforeRequest,
            ExchangeError::Http1(Http1Error::Malformed(_)) => Reset::Protocol,
            ExchangeError::Http1(_) => Reset::Connection,
            ExchangeError::Http2(error) => Reset::of_http2(error),
            ExchangeError::Ended | ExchangeError::Silent => Reset::Connection,
        }
    }

    /// From what the library says of a stream or a connection, on either side.
    pub(super) fn of_http2(error: &h2::Error) -> Self {
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) => Reset::Refused,
            // A stream that an orderly GOAWAY leaves out was not looked at (RFC 9113 §6.8).
            Some(h2::Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => Reset::Refused,
            Some(h2::Reason::PROTOCOL_ERROR) => Reset::Protocol,
            Some(_) if error.is_library() => Reset::Protocol,
            Some(_) => Reset::Stream,
            None => Reset::Connection,
        }
    }
}

impl Failure {
    /// What the caller is answered.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Failure::NoRoutesYet { .. } | Failure::NoRoute { .. } => StatusCode::NOT_FOUND,
            Failure::NoCluster { status, .. } => *status,
            Failure::Malformed { .. }
            | Failure::Reset {
                how: Reset::Protocol,
                ..
            } => StatusCode::BAD_GATEWAY,
            Failure::RequestBody | Failure::ClientGone => StatusCode::BAD_REQUEST,
            Failure::NoEndpoint { .. }
            | Failure::Overflow { .. }
            | Failure::Overloaded
            | Failure::Connect { .. }
            | Failure::Reset { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Failure::PerTryTimeout { .. }
            | Failure::PerTryIdle { .. }
            | Failure::Timeout { .. }
            | Failure::Idle {
                has_request: true, ..
            }
            | Failure::Duration {
                has_request: true, ..
            } => StatusCode::GATEWAY_TIMEOUT,
            Failure::Idle { .. } | Failure::Duration { .. } | Failure::RequestTimeout { .. } => {
                StatusCode::REQUEST_TIMEOUT
            }
            Failure::Answered(reply) => reply.status,
            Failure::Authority { .. } => StatusCode::BAD_REQUEST,
            Failure::Rewrite { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the access log says about it.
    pub(super) fn flag(&self) -> ResponseFlags {
        match self {
            Failure::NoRoutesYet { .. } | Failure::NoRoute { .. } => ResponseFlags::NO_ROUTE,
            Failure::NoCluster { .. } => ResponseFlags::NO_CLUSTER,
            Failure::NoEndpoint {
                source: NoEndpoint::Dropped,
                ..
            } => ResponseFlags::UNCONDITIONAL_DROP_OVERLOAD,
            Failure::NoEndpoint { .. } => ResponseFlags::NO_HEALTHY_UPSTREAM,
            Failure::Overflow { .. }
            | Failure::Connect {
                source: ConnectFailure::Overflow(_),
                ..
            } => ResponseFlags::UPSTREAM_OVERFLOW,
            Failure::Connect { .. } => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Failure::Reset { how, .. } => match how {
                Reset::BeforeRequest | Reset::Connection => ResponseFlags::UPSTREAM_TERMINATION,
                Reset::Refused | Reset::Stream => ResponseFlags::UPSTREAM_REMOTE_RESET,
                Reset::Protocol => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
            },
            Failure::Malformed { .. } => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
            Failure::RequestBody => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            Failure::ClientGone => ResponseFlags::DOWNSTREAM_TERMINATION,
            Failure::PerTryTimeout { .. }
            | Failure::PerTryIdle { .. }
            | Failure::Timeout { .. } => ResponseFlags::UPSTREAM_TIMEOUT,
            Failure::Idle { .. } => ResponseFlags::STREAM_IDLE_TIMEOUT,
            // Envoy has no flag for them.
            Failure::Duration { .. } | Failure::RequestTimeout { .. } | Failure::Overloaded => {
                ResponseFlags::default()
            }
            Failure::Answered(reply) => reply.flag,
            Failure::Authority { .. } => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            Failure::Rewrite { .. } => ResponseFlags::LOCAL_RESET,
        }
    }

    /// What the connection manager counts it as.
    pub(super) fn event(&self) -> Option<HttpEvent> {
        Some(match self {
            Failure::NoRoutesYet { .. } | Failure::NoRoute { .. } => HttpEvent::NoRoute,
            Failure::NoCluster { .. } => HttpEvent::NoCluster,
            Failure::Overloaded => HttpEvent::Overloaded,
            Failure::Idle { .. } => HttpEvent::StreamIdle,
            Failure::Duration { .. } => HttpEvent::StreamTooLong,
            Failure::RequestTimeout { .. } => HttpEvent::RequestTimeout,
            Failure::Answered(reply) => return reply.event,
            _ => return None,
        })
    }

    /// The body of the answer after so many tries, in Envoy's words: clients look for them.
    pub(super) fn body(&self, attempts: u32) -> Bytes {
        let reset = |reason: &str| {
            let text = "upstream connect error or disconnect/reset before headers.";
            let which = match attempts {
                0 | 1 => "reset reason:",
                _ => "retried and the latest reset reason:",
            };
            Bytes::from(format!("{text} {which} {reason}"))
        };
        match self {
            Failure::NoRoutesYet { .. }
            | Failure::NoRoute { .. }
            | Failure::NoCluster { .. }
            | Failure::Authority { .. }
            | Failure::Rewrite { .. } => Bytes::new(),
            Failure::NoEndpoint { .. } => Bytes::from_static(b"no healthy upstream"),
            Failure::Overflow { .. }
            | Failure::Connect {
                source: ConnectFailure::Overflow(_),
                ..
            } => reset("overflow"),
            Failure::Connect { source, .. } => match source.is_timeout() {
                true => reset("connection timeout"),
                false => reset("remote connection failure"),
            },
            Failure::Reset { how, .. } => reset(match how {
                Reset::BeforeRequest | Reset::Connection => "connection termination",
                Reset::Refused => "remote refused stream reset",
                Reset::Stream => "remote reset",
                Reset::Protocol => "protocol error",
            }),
            Failure::Malformed { .. } => reset("protocol error"),
            Failure::ClientGone => Bytes::new(),
            Failure::RequestBody => Bytes::from_static(b"Bad Request"),
            Failure::Overloaded => Bytes::from_static(b"envoy overloaded"),
            Failure::PerTryTimeout { .. }
            | Failure::PerTryIdle { .. }
            | Failure::Timeout { .. } => Bytes::from_static(b"upstream request timeout"),
            Failure::Idle { .. } => Bytes::from_static(b"stream timeout"),
            Failure::Duration { .. } => Bytes::from_static(b"downstream duration timeout"),
            Failure::RequestTimeout { .. } => Bytes::from_static(b"request timeout"),
            Failure::Answered(reply) => reply.body.clone(),
        }
    }

    /// What a gRPC caller is told; none: what corresponds to the status.
    pub(super) fn grpc_status(&self) -> Option<u32> {
        const DEADLINE_EXCEEDED: u32 = 4;
        match self {
            Failure::Answered(reply) => reply.grpc_status,
            Failure::Duration { .. } => Some(DEADLINE_EXCEEDED),
            _ => None,
        }
    }

    /// Whether it happened while the router tried, so that the answer may say how often.
    pub(super) fn is_of_a_try(&self) -> bool {
        matches!(
            self,
            Failure::NoEndpoint { .. }
                | Failure::Overflow { .. }
                | Failure::Connect { .. }
                | Failure::Reset { .. }
                | Failure::Malformed { .. }
                | Failure::PerTryTimeout { .. }
                | Failure::PerTryIdle { .. }
                | Failure::Timeout { .. }
        )
    }

    /// Whether it belongs to the share that the control plane wants refused.
    pub(super) fn is_dropped(&self) -> bool {
        self.flag() == ResponseFlags::UNCONDITIONAL_DROP_OVERLOAD
    }

    /// Whether a limit of ours refused it.
    pub(super) fn is_overflow(&self) -> bool {
        self.flag() == ResponseFlags::UPSTREAM_OVERFLOW
    }
}
