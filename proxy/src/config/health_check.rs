//! Active health checks: how endpoints are asked whether they are well.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::headers::HeaderMutations;
use super::matching::TextMatch;

/// One way of asking.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheckConfig {
    /// How long an answer may take.
    pub timeout: Duration,
    /// When to ask again.
    pub intervals: Intervals,
    /// Failures in a row until an endpoint is unhealthy.
    pub unhealthy_threshold: u32,
    /// Successes in a row until it is healthy again.
    pub healthy_threshold: u32,
    /// Asked at another port.
    pub port: Option<u16>,
    /// Whether one connection serves several checks.
    pub reuses_connection: bool,
    /// Offered by ALPN in place of what is spoken.
    pub alpn: Option<Arc<str>>,
    /// What is asked.
    pub probe: Probe,
}

/// How long to wait between checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Usually.
    pub usual: Duration,
    /// Drawn up to this, and added.
    pub jitter: Duration,
    /// Drawn up to this share of the interval in percent, and added.
    pub jitter_percent: u32,
    /// Drawn up to this, before the first.
    pub initial_jitter: Duration,
    /// While the cluster has had no request.
    pub no_traffic: Duration,
    /// While it has had none, and the endpoint is healthy.
    pub no_traffic_healthy: Option<Duration>,
    /// While the endpoint is unhealthy.
    pub unhealthy: Duration,
    /// After the first failure of a healthy one.
    pub unhealthy_edge: Duration,
    /// After the first success of an unhealthy one.
    pub healthy_edge: Duration,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// A request.
    Http(Box<HttpProbe>),
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service asked for; empty: the whole server.
        service: Arc<str>,
        /// The authority; none: the endpoint's name or the cluster's.
        authority: Option<Arc<str>>,
        /// More headers.
        headers: HeaderMutations,
    },
    /// A connection.
    Tcp {
        /// What is sent.
        send: Bytes,
        /// What must come back, in this order, among other bytes.
        receive: Vec<Bytes>,
    },
}

/// A health check by HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// The method.
    pub method: Method,
    /// The host; none: the endpoint's name or the cluster's.
    pub host: Option<Arc<str>>,
    /// The path.
    pub path: Arc<str>,
    /// The body.
    pub send: Bytes,
    /// What the answer's body must have, in this order.
    pub receive: Vec<Bytes>,
    /// More headers.
    pub headers: HeaderMutations,
    /// Which statuses are good.
    pub expected: Vec<Range<u16>>,
    /// Which are failures that count towards the threshold; all others end the endpoint's health at once.
    pub retriable: Vec<Range<u16>>,
    /// Whether HTTP/2 is spoken.
    pub is_http2: bool,
    /// Of `x-envoy-upstream-healthchecked-cluster`.
    pub service_name: Option<TextMatch>,
    /// No more of the answer's body is looked at.
    pub max_body_bytes: usize,
}
