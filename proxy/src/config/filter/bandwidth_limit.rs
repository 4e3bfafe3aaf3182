//! Bodies that are slowed down.

use std::sync::Arc;
use std::time::Duration;

use super::live::Live;

/// How slow bodies are, all of them together.
#[derive(Debug, Clone, PartialEq)]
pub struct BandwidthLimitConfig {
    /// Of its counters.
    pub stat_prefix: Arc<str>,
    /// Whether bodies of requests are slowed down.
    pub requests: bool,
    /// Whether bodies of responses are.
    pub responses: bool,
    /// KiB per second.
    pub kibibytes: u64,
    /// How often bytes pass.
    pub interval: Duration,
    /// The bytes that may pass, and counters.
    pub live: Live,
}
