//! What the data path tells telemetry: one report for each request and connection, when it has ended.
//!
//! `http` and `tcp` fill them in; `Recorder` turns them into metrics, access-log lines and spans. Values are
//! shared with the request they describe, not copied.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use super::session::Session;
use super::trace::TraceContext;
use crate::config::Workload;
use crate::config::access_log::AccessLogConfig;
use crate::config::listener::Direction;
use crate::config::metadata::Metadata;
use crate::config::tracing::TracingConfig;

/// Receives reports. Called on the data path: it must not wait.
pub trait ReportSink: Send + Sync {
    /// A request has ended.
    fn request(&self, report: &RequestReport);
    /// A TCP connection has been opened to its upstream, or has failed to.
    fn tcp_open(&self, report: &TcpReport);
    /// It has ended.
    fn tcp_close(&self, report: &TcpReport);
    /// A connection has ended that was none of opaque bytes, or that nobody was for.
    fn connection(&self, report: &TcpReport);
}

/// The application protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// As it stands in access logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

/// What went unlike it should, in Envoy's response flags. Several can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct ResponseFlags(u32);

/// All flags, with Envoy's short names; what is found out first comes first.
const FLAGS: [(ResponseFlags, &str); 22] = [
    (ResponseFlags::UPSTREAM_RETRY_LIMIT, "URX"),
    (ResponseFlags::NO_HEALTHY_UPSTREAM, "UH"),
    (ResponseFlags::UPSTREAM_CONNECTION_FAILURE, "UF"),
    (ResponseFlags::UPSTREAM_OVERFLOW, "UO"),
    (ResponseFlags::NO_ROUTE, "NR"),
    (ResponseFlags::NO_CLUSTER, "NC"),
    (ResponseFlags::DOWNSTREAM_TERMINATION, "DC"),
    (ResponseFlags::LOCAL_RESET, "LR"),
    (ResponseFlags::UPSTREAM_REMOTE_RESET, "UR"),
    (ResponseFlags::UPSTREAM_TERMINATION, "UC"),
    (ResponseFlags::DELAY_INJECTED, "DI"),
    (ResponseFlags::FAULT_INJECTED, "FI"),
    (ResponseFlags::UPSTREAM_TIMEOUT, "UT"),
    (ResponseFlags::STREAM_IDLE_TIMEOUT, "SI"),
    (ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, "DPE"),
    (ResponseFlags::UNAUTHORIZED, "UAEX"),
    (ResponseFlags::RATE_LIMITED, "RL"),
    (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "UPE"),
    (ResponseFlags::DURATION_TIMEOUT, "DT"),
    (ResponseFlags::FAILED_LOCAL_HEALTH_CHECK, "LH"),
    (ResponseFlags::RATE_LIMIT_SERVICE_ERROR, "RLSE"),
    (ResponseFlags::UNCONDITIONAL_DROP_OVERLOAD, "UDO"),
];

impl ResponseFlags {
    /// No endpoint may be used.
    pub const NO_HEALTHY_UPSTREAM: Self = Self(1);
    /// No connection could be made.
    pub const UPSTREAM_CONNECTION_FAILURE: Self = Self(1 << 1);
    /// A circuit breaker refused.
    pub const UPSTREAM_OVERFLOW: Self = Self(1 << 2);
    /// No route, or no filter chain.
    pub const NO_ROUTE: Self = Self(1 << 3);
    /// All tries were used up.
    pub const UPSTREAM_RETRY_LIMIT: Self = Self(1 << 4);
    /// The route's cluster does not exist.
    pub const NO_CLUSTER: Self = Self(1 << 5);
    /// The client went away.
    pub const DOWNSTREAM_TERMINATION: Self = Self(1 << 6);
    /// The proxy gave up on the upstream's stream.
    pub const LOCAL_RESET: Self = Self(1 << 7);
    /// The upstream reset the stream.
    pub const UPSTREAM_REMOTE_RESET: Self = Self(1 << 8);
    /// The upstream's connection ended.
    pub const UPSTREAM_TERMINATION: Self = Self(1 << 9);
    /// A delay was injected.
    pub const DELAY_INJECTED: Self = Self(1 << 10);
    /// An abort was injected.
    pub const FAULT_INJECTED: Self = Self(1 << 11);
    /// The upstream took too long.
    pub const UPSTREAM_TIMEOUT: Self = Self(1 << 12);
    /// Nothing was said for too long.
    pub const STREAM_IDLE_TIMEOUT: Self = Self(1 << 13);
    /// The client did not keep to the protocol.
    pub const DOWNSTREAM_PROTOCOL_ERROR: Self = Self(1 << 14);
    /// The caller may not.
    pub const UNAUTHORIZED: Self = Self(1 << 15);
    /// A rate limit refused.
    pub const RATE_LIMITED: Self = Self(1 << 16);
    /// The upstream did not keep to the protocol.
    pub const UPSTREAM_PROTOCOL_ERROR: Self = Self(1 << 17);
    /// The proxy is not healthy.
    pub const FAILED_LOCAL_HEALTH_CHECK: Self = Self(1 << 18);
    /// The rate limit service did not answer.
    pub const RATE_LIMIT_SERVICE_ERROR: Self = Self(1 << 19);
    /// The stream took longer than streams may.
    pub const DURATION_TIMEOUT: Self = Self(1 << 20);
    /// The control plane wants a share of the requests refused.
    pub const UNCONDITIONAL_DROP_OVERLOAD: Self = Self(1 << 21);
    /// All of them.
    pub const ALL: Self = Self((1 << 22) - 1);

    /// Adds those of another.
    pub fn add(&mut self, other: ResponseFlags) {
        self.0 |= other.0;
    }

    /// Whether all of another hold.
    pub fn contains(self, other: ResponseFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether none holds.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The short names of those that hold.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FLAGS
            .into_iter()
            .filter(move |(flag, _)| self.contains(*flag))
            .map(|(_, name)| name)
    }
}

impl std::fmt::Display for ResponseFlags {
    /// `URX,UF`, or `-` for none: as in Envoy's access log.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return formatter.write_str("-");
        }
        for (index, name) in self.names().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(formatter, "{comma}{name}")?;
        }
        Ok(())
    }
}

/// The client's side of a connection: the same for all its requests.
#[derive(Debug, Clone)]
pub struct Downstream {
    /// Its number, of all connections of this process.
    pub id: u64,
    /// The listener it came in by.
    pub listener: Arc<str>,
    /// Which way its traffic goes.
    pub direction: Direction,
    /// The client.
    pub peer: SocketAddr,
    /// Who has made the connection: the client, or whoever has announced it by the PROXY protocol.
    pub direct_peer: SocketAddr,
    /// Where it was going.
    pub local: SocketAddr,
    /// The client's verified identity.
    pub principal: Option<Arc<str>>,
    /// The name a TLS client asked for.
    pub server_name: Option<Arc<str>>,
    /// Its TLS, where it has ended here.
    pub session: Option<Box<Session>>,
    /// Where the listener writes about its connections.
    pub access_logs: Arc<[Arc<AccessLogConfig>]>,
}

/// The endpoint that was used last.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its address.
    pub address: SocketAddr,
    /// Whence it was reached, where that is known.
    pub local: Option<SocketAddr>,
    /// What was spoken with it, where that was HTTP.
    pub protocol: Option<Protocol>,
    /// What it is called.
    pub workload: Arc<Workload>,
    /// Whether it was reached by mTLS.
    pub is_mutual_tls: bool,
    /// The name that it was found by, where it has one.
    pub hostname: Option<Arc<str>>,
    /// The TLS of the connection to it.
    pub session: Option<Arc<Session>>,
}

/// Everything there is to say about a request.
#[derive(Debug, Clone)]
pub struct RequestReport {
    /// The connection it came by.
    pub downstream: Arc<Downstream>,
    /// Who has sent it, where a proxy in front that is believed names another than the peer of the connection.
    pub client: Option<IpAddr>,
    /// When its headers had arrived.
    pub start: SystemTime,
    /// From there to the end of the response.
    pub duration: Duration,
    /// From there to the last byte of the request; none where it has not come.
    pub request_duration: Option<Duration>,
    /// From there to the first byte of the upstream's response.
    pub upstream_latency: Option<Duration>,
    /// What the client speaks.
    pub protocol: Protocol,
    /// Whether it is gRPC.
    pub is_grpc: bool,
    /// Whether it asks for the proxy's own health: its answer is not among those of others.
    pub is_health_check: bool,
    /// Its method.
    pub method: Method,
    /// `http` or `https`; empty where nobody has said.
    pub scheme: &'static str,
    /// Path and query, as the client sent it.
    pub path: Option<PathAndQuery>,
    /// Path and query, as a route has rewritten it.
    pub rewritten_path: Option<PathAndQuery>,
    /// Host and port, as the client sent it.
    pub authority: Option<HeaderValue>,
    /// What a route has made of it.
    pub rewritten_authority: Option<HeaderValue>,
    /// `user-agent`.
    pub user_agent: Option<HeaderValue>,
    /// `x-forwarded-for`, as sent upstream.
    pub forwarded_for: Option<HeaderValue>,
    /// `x-request-id`.
    pub request_id: Option<HeaderValue>,
    /// The span of this request at this proxy.
    pub trace: Option<Box<TraceContext>>,
    /// The route that was taken; empty where none was, or it has no name.
    pub route: Arc<str>,
    /// The cluster it led to.
    pub cluster: Option<Arc<str>>,
    /// The endpoint that was used last.
    pub upstream: Option<Upstream>,
    /// How often it was tried upstream.
    pub attempts: u32,
    /// The response's status; 0 where the client went away before there was one.
    pub response_code: u16,
    /// What went unlike it should.
    pub flags: ResponseFlags,
    /// Why the proxy answered itself, for people.
    pub reason: Option<Arc<str>>,
    /// The same in Envoy's words, by which dashboards count.
    pub details: Option<Arc<str>>,
    /// `grpc-status`, from headers or trailers.
    pub grpc_status: Option<u32>,
    /// Body bytes of the request.
    pub request_bytes: u64,
    /// Body bytes of the response.
    pub response_bytes: u64,
    /// Where it is written about.
    pub access_logs: Arc<[Arc<AccessLogConfig>]>,
    /// Request headers, kept only where an access log or a tag asks for one.
    pub request_headers: Option<Box<HeaderMap>>,
    /// Response headers, likewise.
    pub response_headers: Option<Box<HeaderMap>>,
    /// Response trailers, likewise.
    pub response_trailers: Option<Box<HeaderMap>>,
    /// What the route says of itself.
    pub route_metadata: Option<Arc<Metadata>>,
    /// How it is traced.
    pub tracing: Option<Arc<TracingConfig>>,
    /// What a route, or the proxy at the other end, calls it: the name of its span.
    pub operation: Option<Arc<str>>,
    /// What filters have found out.
    pub metadata: Metadata,
}

/// Everything there is to say about a TCP connection.
#[derive(Debug, Clone)]
pub struct TcpReport {
    /// The client's side.
    pub downstream: Arc<Downstream>,
    /// When it was accepted.
    pub start: SystemTime,
    /// How long it was open; zero in `tcp_open`.
    pub duration: Duration,
    /// The cluster it went to.
    pub cluster: Option<Arc<str>>,
    /// The endpoint.
    pub upstream: Option<Upstream>,
    /// Bytes from the client.
    pub received_bytes: u64,
    /// Bytes to the client.
    pub sent_bytes: u64,
    /// What went unlike it should.
    pub flags: ResponseFlags,
    /// Why, for people.
    pub reason: Option<Arc<str>>,
    /// What the proxy has ended it for, in Envoy's words.
    pub termination: Option<Arc<str>>,
    /// Where it is written about.
    pub access_logs: Arc<[Arc<AccessLogConfig>]>,
}

impl RequestReport {
    /// What logs say of gRPC's status: where the answer does not tell, what corresponds to its HTTP status.
    pub fn told_grpc_status(&self) -> Option<u32> {
        let is_answered = self.response_code != 0;
        let of_http = || is_answered.then(|| grpc_status_of(self.response_code));
        let told = || self.grpc_status.or_else(of_http);
        self.is_grpc.then(told).flatten()
    }
}

/// The gRPC status for an HTTP status ("HTTP to gRPC Status Code Mapping" of gRPC).
pub fn grpc_status_of(status: u16) -> u32 {
    const UNKNOWN: u32 = 2;
    const PERMISSION_DENIED: u32 = 7;
    const UNIMPLEMENTED: u32 = 12;
    const INTERNAL: u32 = 13;
    const UNAVAILABLE: u32 = 14;
    const UNAUTHENTICATED: u32 = 16;
    match status {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_envoy_writes_them() {
        let mut flags = ResponseFlags::default();
        assert_eq!(flags.to_string(), "-");

        flags.add(ResponseFlags::UPSTREAM_RETRY_LIMIT);
        flags.add(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);

        assert_eq!(flags.to_string(), "URX,UF");
    }
}
