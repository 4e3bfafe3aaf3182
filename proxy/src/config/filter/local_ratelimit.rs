//! Rate limits that the proxy keeps itself, of requests and of connections.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::live::Live;
use super::rate_limits::{HostRules, LimitRule};
use crate::config::headers::HeaderMutations;
use crate::config::percent::Percent;

/// A limit on the rate of requests.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalRateLimitConfig {
    /// Of its counters.
    pub stat_prefix: Arc<str>,
    /// For requests that no descriptor matches.
    pub bucket: Option<Bucket>,
    /// For requests whose descriptors match.
    pub descriptors: Vec<DescriptorLimit>,
    /// Rules of its own; where there are none, the route's hold.
    pub rules: Arc<[LimitRule]>,
    /// Whether the rules of the host hold.
    pub host_rules: HostRules,
    /// Which rules it looks at.
    pub stage: u32,
    /// How many requests it looks at.
    pub enabled: Percent,
    /// How many of those that are over the limit it refuses.
    pub enforced: Percent,
    /// What they are told.
    pub status: StatusCode,
    /// Whether gRPC callers are told `RESOURCE_EXHAUSTED` rather than `UNAVAILABLE`.
    pub is_resource_exhausted: bool,
    /// Headers of what they are told.
    pub response_headers: HeaderMutations,
    /// Headers of requests that are over the limit and pass.
    pub request_headers: HeaderMutations,
    /// Whether each connection has buckets of its own.
    pub per_connection: bool,
    /// Whether requests whose descriptors match take from the default bucket, too.
    pub always_takes_default: bool,
    /// Whether responses tell what is left (`x-ratelimit-*`).
    pub tells_limits: bool,
    /// Whether refusals tell when to come again (`retry-after`).
    pub tells_retry_after: bool,
    /// How many values an entry without one may stand for at a time.
    pub max_dynamic: usize,
    /// Buckets and counters.
    pub live: Live,
}

/// A limit for requests with a descriptor.
#[derive(Debug, Clone, PartialEq)]
pub struct DescriptorLimit {
    /// Keys and values, all of them in this order; `None` stands for each value, each with a bucket of its own.
    pub entries: Vec<(Arc<str>, Option<Arc<str>>)>,
    /// The limit.
    pub bucket: Bucket,
    /// Whether it is only counted.
    pub is_shadow: bool,
}

/// A bucket of tokens, of which a request takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// How many it holds.
    pub max_tokens: u32,
    /// How many it gains in each interval, little by little.
    pub tokens_per_fill: u32,
    /// The interval.
    pub fill_interval: Duration,
}
