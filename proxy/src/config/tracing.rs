//! Which requests are traced, and where spans go.

use std::sync::Arc;

use super::percent::Percent;

/// Tracing of a filter chain.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingConfig {
    /// Requests that are sampled where their caller has not decided.
    pub random_sampling: Percent,
    /// Requests that are sampled where their caller asks for it (`x-client-trace-id`); rarely anything but all.
    pub client_sampling: Percent,
    /// Of all that would be sampled.
    pub overall_sampling: Percent,
    /// Whether requests are those that leave, seen from the application (`traffic_direction: OUTBOUND`).
    pub is_egress: bool,
    /// `service.name` of the spans; empty: the workload's.
    pub service_name: Arc<str>,
    /// The collector's cluster; none: only context is propagated.
    pub cluster: Option<Arc<str>>,
    /// Attributes that every span gets.
    pub tags: Vec<Tag>,
}

/// An attribute of spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: Arc<str>,
    /// Its value.
    pub value: TagValue,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagValue {
    /// This one.
    Literal(Arc<str>),
    /// A request header's, or a default.
    RequestHeader {
        /// Which header.
        name: http::HeaderName,
        /// Where there is none.
        default: Option<Arc<str>>,
    },
}
