//! What connections pass before anything is done for them.

use std::sync::Arc;
use std::time::Duration;

use super::live::Live;
use super::local_ratelimit::Bucket;
use super::rbac::RbacConfig;

/// Decides about a connection; the network filters before the one that ends a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Of its counters.
    pub stat_prefix: Arc<str>,
    /// What it decides by.
    pub kind: GateKind,
    /// How long a connection that may not pass is held before it is closed.
    pub delay: Duration,
    /// Counters, tokens, connections.
    pub live: Live,
}

/// What is decided by.
#[derive(Debug, Clone, PartialEq)]
pub enum GateKind {
    /// Who may do what.
    Rbac(Arc<RbacConfig>),
    /// The rate of connections.
    Rate(Bucket),
    /// How many are open at a time.
    Open(u64),
}
