//! How long a connection of a client is used: so that clients come back, and to another proxy where there is one.

use std::time::Duration;

use super::percent::Percent;

/// How long a connection is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifespan {
    /// No more requests than these.
    pub max_requests: Option<u32>,
    /// No longer than this.
    pub max_duration: Option<Duration>,
    /// How much longer it may be, so that not all end at once.
    pub jitter: Percent,
    /// Whether a client of HTTP/1.1 is told with its next response only, however late that is.
    pub waits_for_response: bool,
}
