//! Faults to inject into requests.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::filter::live::Live;
use super::matching::HeaderMatch;
use super::percent::Percent;

/// Delay, abort and a slow response, for the requests that match.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultConfig {
    /// Hold requests up.
    pub delay: Option<FaultDelay>,
    /// Answer requests without asking upstream.
    pub abort: Option<FaultAbort>,
    /// Slow responses down.
    pub rate: Option<FaultRate>,
    /// Only requests that pass all of these.
    pub headers: Vec<HeaderMatch>,
    /// Only requests to this cluster.
    pub upstream_cluster: Option<Arc<str>>,
    /// Only requests of these callers (`x-envoy-downstream-service-node`); empty: of all.
    pub downstream_nodes: Vec<Arc<str>>,
    /// How many may be injected at a time.
    pub max_active: Option<u64>,
    /// Counters and the number of faults at a time.
    pub live: Live,
}

/// How long to hold up how many.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultDelay {
    /// How long.
    pub duration: DelayDuration,
    /// How many.
    pub percent: Percent,
}

/// How long to hold a request up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DelayDuration {
    /// So long.
    Fixed(Duration),
    /// As its header `x-envoy-fault-delay-request` says, in milliseconds.
    Header,
}

/// What to answer to how many.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultAbort {
    /// The answer.
    pub answer: AbortAnswer,
    /// How many.
    pub percent: Percent,
    /// What the answer says.
    pub body: Option<Arc<str>>,
}

/// The answer of an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortAnswer {
    /// An HTTP status; gRPC callers get the gRPC status that corresponds.
    Http(StatusCode),
    /// A gRPC status, in an HTTP 200.
    Grpc(u32),
    /// As the request's headers `x-envoy-fault-abort-request` and `x-envoy-fault-abort-grpc-request` say.
    Header,
}

/// How slow to make how many responses.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRate {
    /// How slow.
    pub limit: RateLimit,
    /// How many.
    pub percent: Percent,
}

/// How slow a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimit {
    /// So many KiB per second.
    Fixed(u64),
    /// As the request's header `x-envoy-fault-throughput-response` says, in KiB per second.
    Header,
}
