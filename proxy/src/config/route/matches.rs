//! For which requests a route is.

use std::sync::Arc;

use super::conditions::{CertificateMatch, CookieMatch};
use crate::config::matching::{HeaderMatch, MetadataMatch, Pattern, TextMatch};
use crate::config::percent::Percent;

/// All of it must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// The path, without the query.
    pub path: PathMatch,
    /// Whether letters of the path are compared regardless of case (not for patterns).
    pub ignore_case: bool,
    /// Headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
    /// Only gRPC requests, by their content type.
    pub grpc: bool,
    /// Only this share of the requests.
    pub share: Percent,
    /// The client's certificate.
    pub certificate: CertificateMatch,
    /// What filters have found out.
    pub metadata: Vec<MetadataMatch>,
    /// Cookies.
    pub cookies: Vec<CookieMatch>,
}

impl RouteMatch {
    /// All requests whose path begins so.
    pub fn prefix(prefix: &str) -> Self {
        RouteMatch {
            path: PathMatch::Prefix(prefix.into()),
            ignore_case: false,
            headers: vec![],
            query: vec![],
            grpc: false,
            share: Percent::ALL,
            certificate: CertificateMatch::default(),
            metadata: vec![],
            cookies: vec![],
        }
    }
}

/// How the path is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// How it begins.
    Prefix(Arc<str>),
    /// The whole of it.
    Exact(Arc<str>),
    /// Whole segments from its beginning: `/a` matches `/a` and `/a/b`, not `/ab`. Without a slash at the end.
    SegmentPrefix(Arc<str>),
    /// The whole of it, by pattern.
    Regex(Pattern),
    /// CONNECT, which has no path.
    Connect,
}

/// A test of one query parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatch {
    /// Which.
    pub name: Arc<str>,
    /// What is asked of it.
    pub test: QueryTest,
}

/// What is asked of a query parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryTest {
    /// That it is there.
    Present,
    /// That it is not.
    Absent,
    /// Of its value, undecoded.
    Value(TextMatch),
}
