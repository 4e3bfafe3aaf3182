//! From which origins requests that change something may come (cross-site request forgery).

use std::sync::Arc;

use super::live::Live;
use crate::config::matching::TextMatch;
use crate::config::percent::Percent;

/// The filter.
#[derive(Debug, Clone, PartialEq)]
pub struct CsrfConfig {
    /// Where routes say nothing else.
    pub policy: Arc<CsrfPolicy>,
    /// Its counters.
    pub live: Live,
}

/// A policy.
#[derive(Debug, Clone, PartialEq)]
pub struct CsrfPolicy {
    /// For how many requests it holds.
    pub enabled: Percent,
    /// For how many origins are counted where it does not hold.
    pub shadow: Percent,
    /// Hosts with their ports whose pages may ask, besides the one that is asked.
    pub origins: Vec<TextMatch>,
}
