//! Envoy's command operators: what `%RESPONSE_CODE%` and its like stand for.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators>

use std::borrow::Cow;
use std::time::SystemTime;

use http::HeaderName;
use jiff::Timestamp;

use super::super::report::{Downstream, RequestReport, ResponseFlags, TcpReport, Upstream};

/// What is written about.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'report> {
    /// A request.
    Request(&'report RequestReport),
    /// A connection.
    Connection(&'report TcpReport),
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
    /// `%RESP(NAME)%`; only `x-envoy-upstream-service-time` and `grpc-status` are kept.
    ResponseHeader(ResponseHeader),
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

/// A response header that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseHeader {
    /// `x-envoy-upstream-service-time`
    UpstreamServiceTime,
    /// `grpc-status`
    GrpcStatus,
    /// Every other: missing.
    Unkept,
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
    /// The same.
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// Where the client was going.
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// The client's identity.
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    /// The trace.
    TraceId = "TRACE_ID",
    /// gRPC's status, as a number.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    /// The same.
    GrpcStatus = "GRPC_STATUS",
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
}

impl Operator {
    /// From what stands between the percent signs.
    pub fn parse(text: &str) -> Result<Self, InvalidOperator> {
        let (word, argument) = match text.split_once('(') {
            Some((word, rest)) => (word, rest.rsplit_once(')').map(|(argument, _)| argument)),
            None => (text, None),
        };
        match (word, argument) {
            ("START_TIME", argument) => start_time(argument.unwrap_or_default()),
            ("REQ" | "REQUEST_HEADER", Some(argument)) => request_header(argument),
            ("RESP" | "RESPONSE_HEADER", Some(argument)) => Ok(response_header(argument)),
            (word, None) => Plain::from_word(word)
                .map(Operator::Plain)
                .ok_or_else(|| InvalidOperator::Unknown(text.to_owned())),
            _ => Err(InvalidOperator::Unknown(text.to_owned())),
        }
    }

    /// What it stands for.
    pub fn value<'report>(&self, entry: Entry<'report>) -> Value<'report> {
        match (self, entry) {
            (Operator::StartTime(format), entry) => time(entry.start(), format),
            (Operator::RequestHeader { name, alternative }, Entry::Request(report)) => {
                match (name.value(report), alternative) {
                    (Value::Missing, Some(alternative)) => alternative.value(report),
                    (value, _) => value,
                }
            }
            (Operator::ResponseHeader(header), Entry::Request(report)) => header.value(report),
            (Operator::Plain(plain), Entry::Request(report)) => plain.of_request(report),
            (Operator::Plain(plain), Entry::Connection(report)) => plain.of_connection(report),
            (
                Operator::RequestHeader { .. } | Operator::ResponseHeader(_),
                Entry::Connection(_),
            ) => Value::Missing,
        }
    }
}

impl Entry<'_> {
    fn start(&self) -> SystemTime {
        match self {
            Entry::Request(report) => report.start,
            Entry::Connection(report) => report.start,
        }
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
            Plain::GrpcStatus | Plain::GrpcStatusNumber => report
                .grpc_status
                .map_or(Value::Missing, |status| Value::Number(status.into())),
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
            Plain::ResponseCodeDetails => report.reason.map_or(Value::Missing, text),
            Plain::UpstreamTransportFailureReason => report
                .reason
                .filter(|_| {
                    report
                        .flags
                        .contains(ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
                })
                .map_or(Value::Missing, text),
            Plain::UpstreamHost => report
                .upstream
                .map_or(Value::Missing, |upstream| shown(upstream.address)),
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
            Plain::DownstreamRemoteAddressWithoutPort => shown(report.downstream.peer.ip()),
            Plain::DownstreamLocalAddress => shown(report.downstream.local),
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

    fn value<'report>(&self, report: &'report RequestReport) -> Value<'report> {
        let value = match self {
            Header::Method => return text(report.method.as_str()),
            Header::Path => {
                return report
                    .path
                    .as_ref()
                    .map_or(Value::Missing, |path| text(path.as_str()));
            }
            Header::Authority => report.authority.as_ref(),
            Header::UserAgent => report.user_agent.as_ref(),
            Header::ForwardedFor => report.forwarded_for.as_ref(),
            Header::RequestId => report.request_id.as_ref(),
            Header::Other(name) => report
                .request_headers
                .as_ref()
                .and_then(|headers| headers.get(name)),
        };
        value.map_or(Value::Missing, |value| {
            Value::Text(String::from_utf8_lossy(value.as_bytes()))
        })
    }
}

impl ResponseHeader {
    fn value(self, report: &RequestReport) -> Value<'_> {
        match self {
            ResponseHeader::UpstreamServiceTime => {
                report.upstream_latency.map_or(Value::Missing, millis)
            }
            ResponseHeader::GrpcStatus => report
                .grpc_status
                .map_or(Value::Missing, |status| Value::Number(status.into())),
            ResponseHeader::Unkept => Value::Missing,
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

fn response_header(argument: &str) -> Operator {
    Operator::ResponseHeader(match argument.to_ascii_lowercase().as_str() {
        "x-envoy-upstream-service-time" => ResponseHeader::UpstreamServiceTime,
        "grpc-status" => ResponseHeader::GrpcStatus,
        _ => ResponseHeader::Unkept,
    })
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
