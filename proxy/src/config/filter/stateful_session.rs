//! Sessions that stay at one endpoint: which one is told to the client, and told back by it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

/// The filter.
#[derive(Debug, Clone, PartialEq)]
pub struct StatefulSessionConfig {
    /// Where the endpoint is told.
    pub state: SessionState,
    /// Whether no other endpoint will do.
    pub is_strict: bool,
}

/// Where the endpoint of a session is told.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionState {
    /// Nowhere.
    None,
    /// In a cookie.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// How long it holds; 0: until the client ends.
        ttl: Duration,
        /// The paths it is for.
        path: Arc<str>,
        /// What else is said of it.
        attributes: Vec<(Arc<str>, Arc<str>)>,
    },
    /// In a header.
    Header(HeaderName),
}
