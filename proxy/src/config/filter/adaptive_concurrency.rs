//! As many requests at a time as the upstream bears, found out by its latency.

use std::time::Duration;

use http::StatusCode;

use super::live::Live;

/// How the number of requests is found.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveConcurrencyConfig {
    /// The share of requests that are faster than the latency that counts, from 0 to 1.
    pub percentile: f64,
    /// The most requests at a time.
    pub max_limit: u32,
    /// The fewest.
    pub min_limit: u32,
    /// How often the number is worked out anew.
    pub update_interval: Duration,
    /// The latency without a load.
    pub min_rtt: MinRtt,
    /// How much larger a latency is no sign of a load, as a share.
    pub buffer: f64,
    /// What those are told that are too many.
    pub status: StatusCode,
    /// The numbers.
    pub live: Live,
}

/// The latency of the upstream without a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinRtt {
    /// It is known.
    Fixed(Duration),
    /// It is measured now and then, with few requests at a time.
    Measured {
        /// How often.
        interval: Duration,
        /// At most so much later, as a share.
        jitter: f64,
        /// By how many requests.
        requests: u32,
        /// By how many at a time.
        concurrency: u32,
    },
}
