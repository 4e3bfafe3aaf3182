//! Redirects of the upstream that the proxy follows itself.

use http::{HeaderName, StatusCode};

/// When it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirects {
    /// How many of one request.
    pub max: u32,
    /// At these statuses.
    pub statuses: Vec<StatusCode>,
    /// Whether they may lead from `http` to `https` or back.
    pub across_schemes: bool,
    /// Whether they may not lead from `http` to `https`: `safe_cross_scheme`.
    pub safe_schemes_only: bool,
    /// Whether they may lead to a route that the request has been on.
    pub avoids_previous_routes: bool,
    /// Where they may lead, by the name of the route; `None`: anywhere.
    pub allowed_routes: Option<Vec<String>>,
    /// Headers of the response that go with the next request.
    pub copied_headers: Vec<HeaderName>,
}

impl Default for InternalRedirects {
    fn default() -> Self {
        InternalRedirects {
            max: 1,
            statuses: vec![StatusCode::FOUND],
            across_schemes: false,
            safe_schemes_only: false,
            avoids_previous_routes: false,
            allowed_routes: None,
            copied_headers: vec![],
        }
    }
}
