//! Health checks that the proxy answers.

use std::sync::Arc;
use std::time::Duration;

use super::live::Live;
use crate::config::matching::HeaderMatch;
use crate::config::percent::Percent;

/// Which requests are health checks, and who answers them.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheckConfig {
    /// A health check passes all of these.
    pub headers: Vec<HeaderMatch>,
    /// Who answers.
    pub answer: HealthAnswer,
    /// The answer that is remembered.
    pub live: Live,
}

/// Who answers a health check.
#[derive(Debug, Clone, PartialEq)]
pub enum HealthAnswer {
    /// The proxy: it is healthy while these clusters have so many healthy endpoints.
    Proxy(Vec<(Arc<str>, Percent)>),
    /// The upstream; its answer is remembered for so long.
    Upstream(Option<Duration>),
}
