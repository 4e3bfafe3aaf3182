//! When a request is tried again.

use std::time::Duration;

/// What makes a request worth another try; in the words of Envoy's `retry_on`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// gRPC statuses (`cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`) in
    /// responses without a body.
    pub grpc_statuses: Vec<u32>,
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

/// The retry policy of a route or virtual host. Budgets belong to the cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetryPolicy {
    /// What makes a request worth another try.
    pub on: RetryConditions,
    /// How often, beside the first try.
    pub retries: u32,
    /// How long one try may take.
    pub per_try_timeout: Option<Duration>,
    /// How long to wait between tries.
    pub back_off: BackOff,
    /// Not the endpoints already tried (`previous_hosts`).
    pub avoid_previous_endpoints: bool,
    /// How often another endpoint is looked for before a tried one is taken (`host_selection_retry_max_attempts`).
    pub endpoint_selection_attempts: u32,
}
