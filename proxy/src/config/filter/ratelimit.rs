//! Rate limits that a service keeps for all proxies.

use std::sync::Arc;

use http::StatusCode;

use super::live::Live;
use super::rate_limits::{HostRules, LimitRule};
use super::service::GrpcTarget;
use crate::config::headers::HeaderMutations;
use crate::config::percent::Percent;

/// Who is asked, and what becomes of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitConfig {
    /// Who is asked.
    pub service: GrpcTarget,
    /// The domain of its limits.
    pub domain: Arc<str>,
    /// Which rules the filter looks at.
    pub stage: u32,
    /// Rules of its own; where there are none, the route's hold.
    pub rules: Arc<[LimitRule]>,
    /// Whose requests are counted.
    pub origin: Origin,
    /// How many requests are refused where nobody answers.
    pub failure_denies: Percent,
    /// What callers are told then.
    pub status_on_error: StatusCode,
    /// What callers over a limit are told.
    pub status: StatusCode,
    /// Whether gRPC callers are told `RESOURCE_EXHAUSTED` rather than `UNAVAILABLE`.
    pub is_resource_exhausted: bool,
    /// Whether responses tell what is left (`x-ratelimit-*`).
    pub tells_limits: bool,
    /// Whether refusals tell when to come again (`retry-after`).
    pub tells_retry_after: bool,
    /// Where the service's metadata go.
    pub metadata_namespace: Arc<str>,
    /// Whether refusals are marked (`x-envoy-ratelimited`).
    pub marks_refusals: bool,
    /// Headers of refusals.
    pub response_headers: HeaderMutations,
    /// Of its counters; may be empty.
    pub stat_prefix: Arc<str>,
    /// How many requests are asked about.
    pub enabled: Percent,
    /// How many of those over a limit are refused.
    pub enforced: Percent,
    /// Counters.
    pub live: Live,
}

/// Whose requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// All.
    Both,
    /// Those of other proxies (`x-envoy-internal`).
    Internal,
    /// Those of others.
    External,
}

/// What a part of the routes says.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitOverride {
    /// Whether the rules of the host hold.
    pub host_rules: HostRules,
    /// Rules in place of the route's, where there are any.
    pub rules: Arc<[LimitRule]>,
    /// Another domain; may be empty.
    pub domain: Arc<str>,
}
