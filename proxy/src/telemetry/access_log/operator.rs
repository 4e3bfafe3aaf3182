//! Envoy's command operators: what `%RESPONSE_CODE%` and its like stand for.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators>

mod argument;

use std::borrow::Cow;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

use self::argument::WithArgument;
use super::super::report::{Downstream, RequestReport, ResponseFlags, TcpReport, Upstream};
use crate::config::matching::RequestLine;

/// What is written about.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'report> {
    /// A request.
    Request(&'report RequestReport),
    /// A connection.
    Connection(&'report TcpReport),
}

/// What operators are asked about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'report> {
    /// A request, on its way or over.
    Exchange(Exchange<'report>),
    /// A connection.
    Connection(&'report TcpReport),
}

impl<'report> From<Entry<'report>> for Subject<'report> {
    fn from(entry: Entry<'report>) -> Self {
        match entry {
            Entry::Request(report) => Subject::Exchange(Exchange::ended(report)),
            Entry::Connection(report) => Subject::Connection(report),
        }
    }
}

/// A request on its way, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'report> {
    /// What is known of it so far.
    pub report: &'report RequestReport,
    /// Its line; where there is none any more, the report's is taken.
    pub line: Option<RequestLine<'report>>,
    /// Its headers; where there are none any more, the report's are taken.
    pub request: Option<&'report HeaderMap>,
    /// The headers of its response.
    pub response: Option<&'report HeaderMap>,
    /// The body of an answer of the proxy's own.
    pub local_body: Option<&'report str>,
}

/// The value of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'report> {
    /// There is none: `-` in a text, `null` in JSON.
    Missing,
    /// A number in JSON.
    Number(u64),
    /// A text.
    Text(Cow<'report, str>),
}

/// One operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// `%START_TIME%`, `%START_TIME(%Y-%m-%d)%`: strftime's notation.
    StartTime(String),
    /// `%REQ(NAME?ALTERNATIVE)%`.
    RequestHeader {
        /// The header.
        name: Header,
        /// Where it is missing.
        alternative: Option<Header>,
    },
    /// `%RESP(NAME?ALTERNATIVE)%`.
    ResponseHeader {
        /// The header.
        name: ResponseHeader,
        /// Where it is missing.
        alternative: Option<ResponseHeader>,
    },
    /// One of the others with an argument.
    WithArgument(WithArgument),
    /// One of those without arguments.
    Plain(Plain),
}

/// A request header; some are kept in every report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// `:method`
    Method,
    /// `:path`, and `x-envoy-original-path`, which is the same: the path as it came.
    Path,
    /// `:authority`, `host`
    Authority,
    /// `user-agent`
    UserAgent,
    /// `x-forwarded-for`
    ForwardedFor,
    /// `x-request-id`
    RequestId,
    /// Any other.
    Other(HeaderName),
}

/// A response header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseHeader {
    /// `x-envoy-upstream-service-time`
    UpstreamServiceTime,
    /// `grpc-status`
    GrpcStatus,
    /// Any other.
    Other(HeaderName),
}

macro_rules! plain_operators {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// An operator without arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Plain {
            $($(#[$doc])* $name,)*
        }

        impl Plain {
            fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Plain::$name),)*
                    _ => None,
                }
            }
        }
    };
}

plain_operators! {
    /// `HTTP/1.1`
    Protocol = "PROTOCOL",
    /// The status; 0 where there is none.
    ResponseCode = "RESPONSE_CODE",
    /// Why the proxy answered itself.
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    /// Envoy's short flags.
    ResponseFlags = "RESPONSE_FLAGS",
    /// Body bytes of the request.
    BytesReceived = "BYTES_RECEIVED",
    /// Body bytes of the response.
    BytesSent = "BYTES_SENT",
    /// Milliseconds.
    Duration = "DURATION",
    /// Milliseconds to the upstream's first byte.
    ResponseDuration = "RESPONSE_DURATION",
    /// The endpoint.
    UpstreamHost = "UPSTREAM_HOST",
    /// The endpoint, once more.
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    /// Without its port.
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Its port.
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    /// The cluster.
    UpstreamCluster = "UPSTREAM_CLUSTER",
    /// The same.
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    /// How often it was tried.
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    /// What went wrong towards the endpoint.
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    /// The route's name.
    RouteName = "ROUTE_NAME",
    /// The name a TLS client asked for.
    RequestedServerName = "REQUESTED_SERVER_NAME",
    /// The client.
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    /// The client without its port.
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// The client's port.
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    /// The same as without `DIRECT`.
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// Without its port.
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    /// Where the client was going.
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// Without its port.
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// The client's identity.
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    /// The trace.
    TraceId = "TRACE_ID",
    /// The span.
    SpanId = "SPAN_ID",
    /// `x-request-id`.
    StreamId = "STREAM_ID",
    /// gRPC's status, as a number.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    /// gRPC's status, as `NotFound`.
    GrpcStatus = "GRPC_STATUS",
    /// Envoy's flags in words.
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    /// The body of an answer of the proxy's own.
    LocalReplyBody = "LOCAL_REPLY_BODY",
}

/// Why an operator is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOperator {
    /// No such word.
    #[error("%{0}% is no command operator that is supported")]
    Unknown(String),
    /// Its argument is no header name.
    #[error("{0:?} is no header name")]
    HeaderName(String),
    /// Its argument is no format of a time.
    #[error("{0:?} is no format of a time")]
    TimeFormat(String),
    /// Its argument is none that it takes.
    #[error("{0:?} is no argument of the operator")]
    Argument(String),
}

impl Operator {
    /// From what stands between the percent signs.
    pub fn parse(text: &str) -> Result<Self, InvalidOperator> {
        let (word, argument) = match text.split_once('(') {
            Some((word, rest)) => (word, rest.rsplit_once(')').map(|(argument, _)| argument)),
            None => (text, None),
        };
        let unknown = || InvalidOperator::Unknown(text.to_owned());
        match (word, argument) {
            ("START_TIME", argument) => start_time(argument.unwrap_or_default()),
            ("REQ" | "REQUEST_HEADER", Some(argument)) => request_header(argument),
            ("RESP" | "RESPONSE_HEADER", Some(argument)) => response_header(argument),
            (word, argument) => match (WithArgument::parse(word, argument)?, argument) {
                (Some(operator), _) => Ok(Operator::WithArgument(operator)),
                (None, None) => Plain::from_word(word)
                    .map(Operator::Plain)
                    .ok_or_else(unknown),
                (None, Some(_)) => Err(unknown()),
            },
        }
    }

    /// What it stands for.
    pub fn value<'report>(&self, subject: Subject<'report>) -> Value<'report> {
        let exchange = match subject {
            Subject::Connection(report) => return self.of_connection(report),
            Subject::Exchange(exchange) => exchange,
        };
        match self {
            Operator::StartTime(format) => time(exchange.report.start, format),
            Operator::RequestHeader { name, alternative } => match name.value(exchange) {
                Value::Missing => alternative
                    .as_ref()
                    .map_or(Value::Missing, |name| name.value(exchange)),
                value => value,
            },
            Operator::ResponseHeader { name, alternative } => match name.value(exchange) {
                Value::Missing => alternative
                    .as_ref()
                    .map_or(Value::Missing, |name| name.value(exchange)),
                value => value,
            },
            Operator::WithArgument(operator) => operator.value(exchange),
            Operator::Plain(Plain::LocalReplyBody) => {
                exchange.local_body.map_or(Value::Missing, text)
            }
            Operator::Plain(plain) => plain.of_request(exchange.report),
        }
    }

    fn of_connection<'report>(&self, report: &'report TcpReport) -> Value<'report> {
        match self {
            Operator::StartTime(format) => time(report.start, format),
            Operator::Plain(plain) => plain.of_connection(report),
            Operator::WithArgument(WithArgument::Fixed(fixed)) => Value::Text(fixed.clone().into()),
            Operator::RequestHeader { .. }
            | Operator::ResponseHeader { .. }
            | Operator::WithArgument(_) => Value::Missing,
        }
    }

    /// Whether it looks at headers of a request that a report does not hold unless it is asked to.
    pub fn needs_request_headers(&self) -> bool {
        let is_other = |header: &Header| matches!(header, Header::Other(_));
        match self {
            Operator::RequestHeader { name, alternative } => {
                is_other(name) || alternative.as_ref().is_some_and(is_other)
            }
            _ => false,
        }
    }

    /// Whether it looks at headers of a response that a report does not hold unless it is asked to.
    pub fn needs_response_headers(&self) -> bool {
        let is_other = |header: &ResponseHeader| matches!(header, ResponseHeader::Other(_));
        match self {
            Operator::ResponseHeader { name, alternative } => {
                is_other(name) || alternative.as_ref().is_some_and(is_other)
            }
            _ => false,
        }
    }
}

impl<'report> Exchange<'report> {
    /// One that is over.
    pub fn ended(report: &'report RequestReport) -> Self {
        Exchange {
            report,
            line: None,
            request: None,
            response: None,
            local_body: None,
        }
    }

    /// Path and query, as they are now.
    fn path(self) -> Option<&'report str> {
        let line = self.line.map(|line| line.path);
        line.or(self.report.path.as_ref().map(|path| path.as_str()))
    }
}

impl Plain {
    fn of_request(self, report: &RequestReport) -> Value<'_> {
        match self {
            Plain::Protocol => text(report.protocol.as_str()),
            Plain::ResponseCode => Value::Number(report.response_code.into()),
            Plain::BytesReceived => Value::Number(report.request_bytes),
            Plain::BytesSent => Value::Number(report.response_bytes),
            Plain::Duration => millis(report.duration),
            Plain::ResponseDuration => report.upstream_latency.map_or(Value::Missing, millis),
            Plain::UpstreamRequestAttemptCount => Value::Number(report.attempts.into()),
            Plain::RouteName => named(&report.route),
            Plain::TraceId => match &report.trace {
                Some(trace) => Value::Text(format!("{:032x}", trace.trace_id()).into()),
                None => Value::Missing,
            },
            Plain::SpanId => match &report.trace {
                Some(trace) => Value::Text(format!("{:016x}", trace.span_id()).into()),
                None => Value::Missing,
            },
            Plain::StreamId => report
                .request_id
                .as_ref()
                .map_or(Value::Missing, header_text),
            Plain::GrpcStatusNumber => report
                .grpc_status
                .map_or(Value::Missing, |status| Value::Number(status.into())),
            Plain::GrpcStatus => report
                .grpc_status
                .map_or(Value::Missing, argument::camel_case_status),
            other => other.of_both(&Common {
                downstream: &report.downstream,
                upstream: report.upstream.as_ref(),
                cluster: report.cluster.as_deref(),
                flags: report.flags,
                reason: report.reason.as_deref(),
            }),
        }
    }

    fn of_connection(self, report: &TcpReport) -> Value<'_> {
        match self {
            Plain::ResponseCode => Value::Number(0),
            Plain::BytesReceived => Value::Number(report.received_bytes),
            Plain::BytesSent => Value::Number(report.sent_bytes),
            Plain::Duration => millis(report.duration),
            other => other.of_both(&Common {
                downstream: &report.downstream,
                upstream: report.upstream.as_ref(),
                cluster: report.cluster.as_deref(),
                flags: report.flags,
                reason: report.reason.as_deref(),
            }),
        }
    }

    fn of_both<'report>(self, report: &Common<'report>) -> Value<'report> {
        match self {
            Plain::ResponseFlags => Value::Text(report.flags.to_string().into()),
            Plain::ResponseFlagsLong => Value::Text(argument::long_flags(report.flags).into()),
            Plain::ResponseCodeDetails => report.reason.map_or(Value::Missing, text),
            Plain::UpstreamTransportFailureReason => report
                .reason
                .filter(|_| {
                    report
                        .flags
                        .contains(ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
                })
                .map_or(Value::Missing, text),
            Plain::UpstreamHost | Plain::UpstreamRemoteAddress => report
                .upstream
                .map_or(Value::Missing, |upstream| shown(upstream.address)),
            Plain::UpstreamRemoteAddressWithoutPort => report
                .upstream
                .map_or(Value::Missing, |upstream| shown(upstream.address.ip())),
            Plain::UpstreamRemotePort => report
                .upstream
                .map_or(Value::Missing, |upstream| port(upstream.address)),
            Plain::UpstreamCluster | Plain::UpstreamClusterRaw => {
                report.cluster.map_or(Value::Missing, text)
            }
            Plain::RequestedServerName => report
                .downstream
                .server_name
                .as_deref()
                .map_or(Value::Missing, text),
            Plain::DownstreamRemoteAddress | Plain::DownstreamDirectRemoteAddress => {
                shown(report.downstream.peer)
            }
            Plain::DownstreamRemoteAddressWithoutPort
            | Plain::DownstreamDirectRemoteAddressWithoutPort => shown(report.downstream.peer.ip()),
            Plain::DownstreamRemotePort | Plain::DownstreamDirectRemotePort => {
                port(report.downstream.peer)
            }
            Plain::DownstreamLocalAddress => shown(report.downstream.local),
            Plain::DownstreamLocalAddressWithoutPort => shown(report.downstream.local.ip()),
            Plain::DownstreamLocalPort => port(report.downstream.local),
            Plain::DownstreamPeerUriSan => report
                .downstream
                .principal
                .as_deref()
                .map_or(Value::Missing, text),
            _ => Value::Missing,
        }
    }
}

/// What requests and connections have in common.
struct Common<'report> {
    downstream: &'report Downstream,
    upstream: Option<&'report Upstream>,
    cluster: Option<&'report str>,
    flags: ResponseFlags,
    reason: Option<&'report str>,
}

impl Header {
    fn parse(name: &str) -> Result<Self, InvalidOperator> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Header::Method,
            ":path" | "x-envoy-original-path" => Header::Path,
            ":authority" | "host" => Header::Authority,
            "user-agent" => Header::UserAgent,
            "x-forwarded-for" => Header::ForwardedFor,
            "x-request-id" => Header::RequestId,
            other => Header::Other(
                other
                    .parse()
                    .map_err(|_| InvalidOperator::HeaderName(name.to_owned()))?,
            ),
        })
    }

    fn value<'report>(&self, exchange: Exchange<'report>) -> Value<'report> {
        let report = exchange.report;
        if let (Some(line), Header::Method | Header::Path | Header::Authority) =
            (exchange.line, self)
        {
            return text(match self {
                Header::Method => line.method,
                Header::Authority => line.authority,
                _ => line.path,
            });
        }
        if let Some(headers) = exchange.request {
            return self.among(headers);
        }
        let value = match self {
            Header::Method => return text(report.method.as_str()),
            Header::Path => return exchange.path().map_or(Value::Missing, text),
            Header::Authority => report.authority.as_ref(),
            Header::UserAgent => report.user_agent.as_ref(),
            Header::ForwardedFor => report.forwarded_for.as_ref(),
            Header::RequestId => report.request_id.as_ref(),
            Header::Other(name) => report
                .request_headers
                .as_ref()
                .and_then(|headers| headers.get(name)),
        };
        value.map_or(Value::Missing, header_text)
    }

    fn among<'report>(&self, headers: &'report HeaderMap) -> Value<'report> {
        let value = match self {
            Header::Method | Header::Path | Header::Authority => None,
            Header::UserAgent => headers.get(http::header::USER_AGENT),
            Header::ForwardedFor => headers.get("x-forwarded-for"),
            Header::RequestId => headers.get("x-request-id"),
            Header::Other(name) => headers.get(name),
        };
        value.map_or(Value::Missing, header_text)
    }
}

impl ResponseHeader {
    fn parse(name: &str) -> Result<Self, InvalidOperator> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "x-envoy-upstream-service-time" => ResponseHeader::UpstreamServiceTime,
            "grpc-status" => ResponseHeader::GrpcStatus,
            other => ResponseHeader::Other(
                other
                    .parse()
                    .map_err(|_| InvalidOperator::HeaderName(name.to_owned()))?,
            ),
        })
    }

    fn value<'report>(&self, exchange: Exchange<'report>) -> Value<'report> {
        let report = exchange.report;
        match self {
            ResponseHeader::UpstreamServiceTime => {
                report.upstream_latency.map_or(Value::Missing, millis)
            }
            ResponseHeader::GrpcStatus => report
                .grpc_status
                .map_or(Value::Missing, |status| Value::Number(status.into())),
            ResponseHeader::Other(name) => exchange
                .response
                .or(report.response_headers.as_deref())
                .and_then(|headers| headers.get(name))
                .map_or(Value::Missing, header_text),
        }
    }
}

/// Envoy's: `2016-04-15T20:17:00.310Z`.
const DEFAULT_TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.3fZ";

fn start_time(format: &str) -> Result<Operator, InvalidOperator> {
    let format = if format.is_empty() {
        DEFAULT_TIME_FORMAT
    } else {
        format
    };
    match jiff::fmt::strtime::format(format, Timestamp::UNIX_EPOCH) {
        Ok(_) => Ok(Operator::StartTime(format.to_owned())),
        Err(_) => Err(InvalidOperator::TimeFormat(format.to_owned())),
    }
}

fn request_header(argument: &str) -> Result<Operator, InvalidOperator> {
    let (name, alternative) = match argument.split_once('?') {
        Some((name, alternative)) => (name, Some(Header::parse(alternative)?)),
        None => (argument, None),
    };
    Ok(Operator::RequestHeader {
        name: Header::parse(name)?,
        alternative,
    })
}

fn response_header(argument: &str) -> Result<Operator, InvalidOperator> {
    let (name, alternative) = match argument.split_once('?') {
        Some((name, alternative)) => (name, Some(ResponseHeader::parse(alternative)?)),
        None => (argument, None),
    };
    Ok(Operator::ResponseHeader {
        name: ResponseHeader::parse(name)?,
        alternative,
    })
}

fn header_text(value: &http::HeaderValue) -> Value<'_> {
    Value::Text(String::from_utf8_lossy(value.as_bytes()))
}

fn port(address: std::net::SocketAddr) -> Value<'static> {
    Value::Number(address.port().into())
}

fn time(time: SystemTime, format: &str) -> Value<'static> {
    Timestamp::try_from(time)
        .and_then(|time| jiff::fmt::strtime::format(format, time))
        .map_or(Value::Missing, |text| Value::Text(text.into()))
}

fn text(text: &str) -> Value<'_> {
    Value::Text(text.into())
}

fn named(name: &str) -> Value<'_> {
    if name.is_empty() {
        Value::Missing
    } else {
        text(name)
    }
}

fn shown(value: impl ToString) -> Value<'static> {
    Value::Text(value.to_string().into())
}

fn millis(duration: std::time::Duration) -> Value<'static> {
    Value::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
