//! Faults to inject into requests.

use std::time::Duration;

use http::StatusCode;

use super::matching::HeaderMatch;
use super::percent::Percent;

/// Delay and abort, for the requests that match.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultConfig {
    /// Hold requests up.
    pub delay: Option<FaultDelay>,
    /// Answer requests without asking upstream.
    pub abort: Option<FaultAbort>,
    /// Only requests that pass all of these.
    pub headers: Vec<HeaderMatch>,
}

/// How long to hold up how many.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultDelay {
    /// How long.
    pub duration: Duration,
    /// How many.
    pub percent: Percent,
}

/// What to answer to how many.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultAbort {
    /// The answer.
    pub answer: AbortAnswer,
    /// How many.
    pub percent: Percent,
}

/// The answer of an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortAnswer {
    /// An HTTP status; gRPC callers get the gRPC status that corresponds.
    Http(StatusCode),
    /// A gRPC status, in an HTTP 200.
    Grpc(u32),
}
