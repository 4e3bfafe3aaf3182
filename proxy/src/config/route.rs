//! Routes: which requests go where.

pub mod action;
pub mod conditions;
pub mod internal_redirect;
pub mod limits;
pub mod matches;
pub mod weighted;

use std::sync::Arc;

use http::HeaderName;

pub use self::action::{
    DirectResponse, Forward, HostRewrite, Mirror, PathRewrite, Redirect, RouteAction, Target,
};
use self::conditions::TlsRequirement;
pub use self::matches::{PathMatch, QueryMatch, QueryTest, RouteMatch};
pub use self::weighted::{ClusterName, WeightedCluster, WeightedClusters};
use super::filter::FilterOverrides;
use super::headers::HeaderMutations;
use super::retry::RetryPolicy;

/// Virtual hosts, chosen by domain.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// Its name; listeners use it.
    pub name: Arc<str>,
    /// Chosen by the request's host: exact, then the longest suffix, then the longest prefix, then any.
    pub virtual_hosts: Vec<VirtualHost>,
    /// For every request.
    pub request_headers: HeaderMutations,
    /// For every response.
    pub response_headers: HeaderMutations,
    /// Whether domains are compared without the request's port.
    pub ignore_port: bool,
    /// Whether path parameters (`;a=b`) are left out where paths are compared.
    pub ignore_path_parameters: bool,
    /// Whether those of a bootstrap, given with their listener, forward to its own clusters alone.
    pub has_known_clusters: bool,
    /// Where the innermost part of the headers' changes goes last, and so has the last word; else it goes first.
    pub innermost_wins: bool,
    /// Chooses the virtual host in place of the request's own host, where it is there.
    pub host_header: Option<HeaderName>,
    /// Headers that nobody outside may send.
    pub internal_headers: Vec<HeaderName>,
}

impl RouteConfig {
    /// Virtual hosts, and nothing else said.
    pub fn new(name: &str, virtual_hosts: Vec<VirtualHost>) -> Self {
        RouteConfig {
            name: name.into(),
            virtual_hosts,
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            ignore_port: false,
            ignore_path_parameters: false,
            has_known_clusters: false,
            innermost_wins: false,
            host_header: None,
            internal_headers: vec![],
        }
    }
}

/// The routes of some domains.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// Lower case.
    pub domains: Vec<Domain>,
    /// The first that matches is taken.
    pub routes: Vec<Route>,
    /// For routes without one of their own.
    pub retry: Option<Arc<RetryPolicy>>,
    /// For every request.
    pub request_headers: HeaderMutations,
    /// For every response.
    pub response_headers: HeaderMutations,
    /// Filters configured for this host only.
    pub filters: FilterOverrides,
    /// Which requests must have come by TLS.
    pub tls: TlsRequirement,
    /// Whether upstreams are told which try they get.
    pub tells_attempts: bool,
    /// Whether callers are told how many tries there were.
    pub answers_attempts: bool,
    /// Whether upstreams are told that a try follows one that took too long.
    pub tells_timeout_retries: bool,
}

impl VirtualHost {
    /// Domains and routes, and nothing else said.
    pub fn new(name: &str, domains: Vec<Domain>, routes: Vec<Route>) -> Self {
        VirtualHost {
            name: name.into(),
            domains,
            routes,
            retry: None,
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            filters: FilterOverrides::default(),
            tls: TlsRequirement::None,
            tells_attempts: false,
            answers_attempts: false,
            tells_timeout_retries: false,
        }
    }
}

/// Which hosts a virtual host stands for; texts in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    /// `*`.
    Any,
    /// `reviews.default`.
    Exact(Arc<str>),
    /// `*.example.com`: holds `.example.com`.
    Suffix(Arc<str>),
    /// `reviews.*`: holds `reviews.`.
    Prefix(Arc<str>),
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name, for logs and metrics; may be empty.
    pub name: Arc<str>,
    /// For which requests.
    pub matches: RouteMatch,
    /// What becomes of them.
    pub action: RouteAction,
    /// What the operation of its requests is called in traces.
    pub decorator: Option<Arc<Decorator>>,
    /// For every request.
    pub request_headers: HeaderMutations,
    /// For every response.
    pub response_headers: HeaderMutations,
    /// Filters configured for this route only.
    pub filters: FilterOverrides,
}

/// What the operation of requests is called in traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decorator {
    /// The name of their spans.
    pub operation: Arc<str>,
    /// Whether the proxy at the other end is told.
    pub is_told: bool,
}

impl Route {
    /// What becomes of which requests, and nothing else said.
    pub fn new(name: &str, matches: RouteMatch, action: RouteAction) -> Self {
        Route {
            name: name.into(),
            matches,
            action,
            decorator: None,
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            filters: FilterOverrides::default(),
        }
    }
}
