//! `BackendTrafficPolicy` of weft.dev, in the words of Envoy Gateway's policy of the same name: how sidecars
//! balance, limit, retry and, for trials, disturb the requests to a service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GatewayDuration;
use super::reference::{Percentage, Policy, TargetReference};

/// The resource.
pub type BackendTrafficPolicy = Policy<BackendTrafficPolicySpec>;

/// What applies to the requests to its targets. Each part left out keeps the mesh's default; for one request the
/// policy of a rule goes before the policy of its route, and that before the policy of the service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTrafficPolicySpec {
    /// Services, routes, or rules of them. `loadBalancer`, `circuitBreaker`, `healthCheck` and
    /// `outlierDetection` are for Services only.
    #[schemars(length(min = 1, max = 32))]
    pub target_refs: Vec<TargetReference>,
    /// How an endpoint is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// How much may be in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Which endpoints are fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Another place for `healthCheck.passive`; not both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<PassiveHealthCheck>,
    /// How long things may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// What is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Faults on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_injection: Option<FaultInjection>,
}

impl BackendTrafficPolicySpec {
    /// Outlier detection, from whichever of its two places it was written in.
    pub fn passive_health_check(&self) -> Option<&PassiveHealthCheck> {
        self.outlier_detection
            .as_ref()
            .or_else(|| self.health_check.as_ref()?.passive.as_ref())
    }
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancer {
    /// The algorithm.
    #[serde(rename = "type")]
    pub kind: LoadBalancerType,
    /// New endpoints get their share by and by; for `RoundRobin` and `LeastRequest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
}

/// The algorithms there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum LoadBalancerType {
    /// The less busy of two chosen by chance.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// By chance.
    Random,
}

/// How long an endpoint counts as new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowStart {
    /// From its first share to its full one.
    pub window: GatewayDuration,
}

/// How much one sidecar may have in flight to the service; 1024 each where left out (3 retries).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Connections to all endpoints together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending_requests: Option<u32>,
    /// Requests in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel_requests: Option<u32>,
    /// Retries in flight, in place of the budget of 20 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel_retries: Option<u32>,
    /// After that many requests a connection is closed; unlimited where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_requests_per_connection: Option<u32>,
}

/// Which endpoints are fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// Below this share of fit endpoints all are used, 0 to 100; 50 where left out, 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub panic_threshold: Option<u32>,
    /// Judged by the answers to real requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive: Option<PassiveHealthCheck>,
}

/// Outlier detection: endpoints that fail are left out for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PassiveHealthCheck {
    /// Failed connections and resets count apart from answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_external_local_origin_errors: Option<bool>,
    /// How often ejections are reviewed; 10s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GatewayDuration>,
    /// Failed connections in a row; needs `splitExternalLocalOriginErrors`. 5 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failures: Option<u32>,
    /// Answers 502, 503, 504 in a row; 0, never, where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_errors: Option<u32>,
    /// Answers 5xx in a row; 5 where left out.
    #[serde(
        rename = "consecutive5XxErrors",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub consecutive_5xx_errors: Option<u32>,
    /// The first ejection lasts that long, the nth n times as long; 30s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<GatewayDuration>,
    /// Never more than this share at once, 0 to 100; 10 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub max_ejection_percent: Option<u32>,
}

/// How long things may take; `0s` switches a limit off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeout {
    /// Connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpTimeout>,
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTimeout>,
}

/// Limits of connections; for Services only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpTimeout {
    /// Until it is established; 5s where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<GatewayDuration>,
}

/// Limits of requests and of the connections they use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpTimeout {
    /// A connection without requests is closed after that; for Services only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_idle_timeout: Option<GatewayDuration>,
    /// The whole request, all attempts together; none where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<GatewayDuration>,
}

/// What is tried again, in place of the mesh's default of two safe retries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// How many times; 2 where left out, 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 20))]
    pub num_retries: Option<u32>,
    /// On what; the mesh's default where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<RetryOn>,
    /// How each is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_retry: Option<PerRetry>,
}

/// What is worth a retry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryOn {
    /// Any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub triggers: Vec<RetryTrigger>,
    /// With the trigger `retriable-status-codes`, which is implied; 100 to 599.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub http_status_codes: Vec<u16>,
}

/// Envoy's words for what is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
#[allow(
    missing_docs,
    reason = "Envoy's documentation of x-envoy-retry-on defines each word"
)]
pub enum RetryTrigger {
    #[serde(rename = "5xx")]
    ServerError,
    GatewayError,
    Reset,
    ResetBeforeRequest,
    /// A reset of a request whose method is idempotent (RFC 9110 §9.2.2).
    ResetIfIdempotent,
    ConnectFailure,
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    RefusedStream,
    RetriableStatusCodes,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

impl RetryTrigger {
    /// Envoy's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ResetBeforeRequest => "reset-before-request",
            Self::ResetIfIdempotent => "reset-if-idempotent",
            Self::ConnectFailure => "connect-failure",
            Self::Retriable4xx => "retriable-4xx",
            Self::RefusedStream => "refused-stream",
            Self::RetriableStatusCodes => "retriable-status-codes",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Internal => "internal",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How each retry is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PerRetry {
    /// One attempt may take that long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GatewayDuration>,
    /// The pause before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOff>,
}

/// A pause that grows from retry to retry, by chance within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackOff {
    /// What it starts from.
    pub base_interval: GatewayDuration,
    /// Never longer; ten times the base where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_interval: Option<GatewayDuration>,
}

/// Faults on purpose; at least one of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultInjection {
    /// Lets requests wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// Answers in place of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
}

/// A wait before the request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultDelay {
    /// How long.
    pub fixed_delay: GatewayDuration,
    /// For which share of requests.
    #[serde(default)]
    pub percentage: Percentage,
}

/// An answer in place of the service's; exactly one of the two statuses.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultAbort {
    /// 200 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub http_status: Option<u16>,
    /// 0 to 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 16))]
    pub grpc_status: Option<u32>,
    /// For which share of requests.
    #[serde(default)]
    pub percentage: Percentage,
}
