//! When a request is tried again.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderName;

use super::balancing::Omission;
use super::matching::HeaderMatch;

/// What makes a request worth another try; in the words of Envoy's `retry_on`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetryConditions {
    /// `connect-failure`: there was no connection.
    pub connect_failure: bool,
    /// `refused-stream`: the upstream says it has not looked at it.
    pub refused_stream: bool,
    /// `reset-before-request`: the connection ended before the request was sent.
    pub reset_before_request: bool,
    /// `reset`: no response at all, also by time-out of the try.
    pub reset: bool,
    /// `reset-if-idempotent`: as `reset`, for methods that RFC 9110 §9.2.2 calls idempotent.
    pub reset_if_idempotent: bool,
    /// `5xx`: any of them, and no response at all.
    pub server_error: bool,
    /// `gateway-error`: 502, 503, 504, and no response at all.
    pub gateway_error: bool,
    /// `retriable-4xx`: 409.
    pub retriable_4xx: bool,
    /// `retriable-status-codes`: these.
    pub status_codes: Vec<u16>,
    /// `retriable-headers`: responses with one of these.
    pub headers: Vec<HeaderMatch>,
    /// `envoy-ratelimited`: responses with `x-envoy-ratelimited`, which are not retried without it.
    pub rate_limited: bool,
    /// gRPC statuses (`cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`) in
    /// responses without a body.
    pub grpc_statuses: Vec<u32>,
}

/// The words of a list such as `5xx,connect-failure`.
pub fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

impl RetryConditions {
    /// Adds the condition that a word stands for; says whether it is one.
    pub fn add(&mut self, word: &str) -> bool {
        match word {
            "connect-failure" => self.connect_failure = true,
            "refused-stream" => self.refused_stream = true,
            "reset-before-request" => self.reset_before_request = true,
            "reset" => self.reset = true,
            "reset-if-idempotent" => self.reset_if_idempotent = true,
            "5xx" => self.server_error = true,
            "gateway-error" => self.gateway_error = true,
            "retriable-4xx" => self.retriable_4xx = true,
            "envoy-ratelimited" => self.rate_limited = true,
            // The codes and headers are listed in fields of their own.
            "retriable-status-codes" | "retriable-headers" => {}
            word => return self.add_grpc(word),
        }
        true
    }

    /// The same for the words of gRPC's statuses alone.
    pub fn add_grpc(&mut self, word: &str) -> bool {
        let status = match word {
            "cancelled" => 1,
            "deadline-exceeded" => 4,
            "resource-exhausted" => 8,
            "internal" => 13,
            "unavailable" => 14,
            _ => return false,
        };
        self.grpc_statuses.push(status);
        true
    }
}

/// How long to wait between tries: a random time below `base × 2ⁿ`, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// Of the first retry; more than zero.
    pub base: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for BackOff {
    /// Envoy's: 25 ms, at most ten times that.
    fn default() -> Self {
        BackOff {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        }
    }
}

/// How long the upstream itself asks to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedBackOff {
    /// The headers it says so in; the first that says something holds.
    pub headers: Vec<ResetHeader>,
    /// What is longer is passed over.
    pub max: Duration,
}

/// A header that says when to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Which.
    pub name: HeaderName,
    /// What it says.
    pub format: ResetFormat,
}

/// What a header that says when to come back holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

/// The retry policy of a route or virtual host. Budgets belong to the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetryPolicy {
    /// What makes a request worth another try.
    pub on: RetryConditions,
    /// Which requests; empty: all.
    pub requests: Vec<HeaderMatch>,
    /// How often, beside the first try.
    pub retries: u32,
    /// How long one try may take.
    pub per_try_timeout: Option<Duration>,
    /// How long one try may be silent.
    pub per_try_idle_timeout: Option<Duration>,
    /// How long to wait between tries.
    pub back_off: BackOff,
    /// How long where the upstream says.
    pub asked_back_off: Option<AskedBackOff>,
    /// Not the endpoints already tried (`previous_hosts`).
    pub avoid_previous_endpoints: bool,
    /// Nor these (`omit_canary_hosts`, `omit_host_metadata`).
    pub omits: Option<Omission>,
    /// After each so many tries, no priority of those that were tried (`previous_priorities`).
    pub leaves_priorities_every: Option<NonZeroU32>,
    /// How often another endpoint is looked for before a tried one is taken (`host_selection_retry_max_attempts`).
    pub endpoint_selection_attempts: u32,
}
