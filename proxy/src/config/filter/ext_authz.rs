//! Asking a service whether a request may pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::live::Live;
use super::service::GrpcTarget;
use crate::config::matching::{MetadataMatch, TextMatch};
use crate::config::percent::Percent;

/// Who is asked, what is said, and what becomes of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtAuthzConfig {
    /// Who is asked.
    pub service: AuthzService,
    /// Whether requests pass where nobody answers.
    pub failure_allows: bool,
    /// Whether they are marked then (`x-envoy-auth-failure-mode-allowed`).
    pub failure_is_marked: bool,
    /// How much of the body is said.
    pub body: Option<AuthzBody>,
    /// Whether refusals count among the responses of the cluster that requests were for.
    pub charges_cluster: bool,
    /// Whether the route is chosen anew when the answer has changed headers.
    pub clears_route: bool,
    /// What callers are told where nobody answers.
    pub status_on_error: StatusCode,
    /// Metadata that are said, by namespace.
    pub metadata_namespaces: Vec<Arc<str>>,
    /// Metadata of the route that are said.
    pub route_metadata_namespaces: Vec<Arc<str>>,
    /// How many requests are asked about.
    pub enabled: Percent,
    /// Only requests with such metadata are asked about.
    pub enabled_metadata: Option<MetadataMatch>,
    /// Whether requests that are not asked about are denied.
    pub denies_unasked: bool,
    /// Of its counters; may be empty.
    pub stat_prefix: Arc<str>,
    /// Headers that are said; `None`: all, to a gRPC service, and a few to one of HTTP.
    pub allowed_headers: Option<Vec<TextMatch>>,
    /// Headers that are not.
    pub disallowed_headers: Vec<TextMatch>,
    /// Whether the name a TLS client asked for is said.
    pub tells_server_name: bool,
    /// Counters.
    pub live: Live,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthzService {
    /// `envoy.service.auth.v3.Authorization`.
    Grpc(GrpcTarget),
    /// Anybody who answers with a status.
    Http(Arc<HttpAuthz>),
}

/// A service that answers by status.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpAuthz {
    /// Where it is.
    pub cluster: Arc<str>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Before the request's path.
    pub path_prefix: Arc<str>,
    /// In place of it; may be empty.
    pub path_override: Arc<str>,
    /// Headers that are said, beside those that always are.
    pub allowed: Vec<TextMatch>,
    /// Headers of every question.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers of the answer that replace the request's.
    pub upstream: Vec<TextMatch>,
    /// Headers of the answer that are added to the request's.
    pub upstream_append: Vec<TextMatch>,
    /// Headers of a denial that the caller is told; empty: all.
    pub client: Vec<TextMatch>,
    /// Headers of a permission that the caller is told.
    pub client_on_success: Vec<TextMatch>,
    /// Headers of the answer that become metadata.
    pub metadata: Vec<TextMatch>,
}

/// How much of a body is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthzBody {
    /// So many bytes.
    pub max_bytes: usize,
    /// Whether the beginning of a larger one is enough; else it is refused.
    pub allows_partial: bool,
    /// Whether it is said as bytes rather than as a text.
    pub is_raw: bool,
}

/// What a part of the routes says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuthzOverride {
    /// Said beside all else.
    pub context: BTreeMap<String, String>,
    /// How much of the body is said: as the chain says, or nothing, or so much.
    pub body: Option<Option<AuthzBody>>,
    /// Who is asked in place of the chain's.
    pub service: Option<AuthzService>,
}

impl AuthzOverride {
    /// With what a part around it says beside all else.
    pub fn inherit(&mut self, outer: &AuthzOverride) {
        for (key, value) in &outer.context {
            self.context
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
    }
}
