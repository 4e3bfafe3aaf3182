//! Services that filters ask.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

/// A gRPC service in a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcTarget {
    /// Where it is.
    pub cluster: Arc<str>,
    /// Whom it is for; empty: the cluster.
    pub authority: Arc<str>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Headers of every question.
    pub metadata: HeaderMap,
}
