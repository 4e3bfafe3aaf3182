//! What becomes of a request: forwarded with changes and limits, redirected, or answered here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::internal_redirect::InternalRedirects;
use super::limits::{GrpcTimeout, StreamDuration};
use super::weighted::{ClusterName, WeightedClusters};
use crate::config::affinity::AimConfig;
use crate::config::body_format::BodyFormat;
use crate::config::filter::header_mutation::Mutations;
use crate::config::matching::{Subject, Substitution};
use crate::config::percent::Percent;
use crate::config::retry::RetryPolicy;
use crate::config::upgrade::RouteUpgrades;
use crate::telemetry::access_log::format::Template;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteAction {
    /// It goes to a cluster.
    Forward(Arc<Forward>),
    /// Its caller is sent elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    Respond(DirectResponse),
}

/// How a request goes to a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Which cluster.
    pub target: Target,
    /// Which of its endpoints.
    pub aim: AimConfig,
    /// The new path.
    pub path: Option<PathRewrite>,
    /// The new host.
    pub host: Option<HostRewrite>,
    /// Whether the host before goes into `x-forwarded-host`.
    pub appends_forwarded_host: bool,
    /// From the whole request to the whole response; not where `stream_duration` is there.
    pub timeout: Option<Duration>,
    /// What a gRPC caller asks for in place of it.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// From the beginning of the request to the whole response.
    pub stream_duration: Option<StreamDuration>,
    /// How long neither side may say anything.
    pub idle_timeout: Option<Duration>,
    /// When it is tried again.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Whether a try that took too long goes on beside the next.
    pub hedges: bool,
    /// How much of a body is kept for another try.
    pub max_kept_bytes: Option<usize>,
    /// Copies.
    pub mirrors: Vec<Mirror>,
    /// Which upgrades are allowed, in place of what the connection manager says.
    pub upgrades: RouteUpgrades,
    /// Redirects of the upstream that are followed here.
    pub internal_redirects: Option<Arc<InternalRedirects>>,
    /// The answer where the cluster does not exist; Envoy's default is 503.
    pub cluster_not_found: StatusCode,
}

impl Forward {
    /// To a cluster, nothing changed, no limits.
    pub fn to(cluster: &str) -> Self {
        Forward {
            target: Target::Cluster(cluster.into()),
            aim: AimConfig::default(),
            path: None,
            host: None,
            appends_forwarded_host: false,
            timeout: None,
            grpc_timeout: None,
            stream_duration: None,
            idle_timeout: None,
            retry: None,
            hedges: false,
            max_kept_bytes: None,
            mirrors: vec![],
            upgrades: RouteUpgrades::default(),
            internal_redirects: None,
            cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Which cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// This one.
    Cluster(Arc<str>),
    /// One of these.
    Weighted(WeightedClusters),
    /// The one that this header names.
    Header(HeaderName),
}

/// A new path; the query stays.
#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// The matched prefix becomes this; for prefix and exact matches.
    Prefix(Arc<str>),
    /// By pattern.
    Regex(Substitution),
    /// The whole path becomes this.
    Full(Arc<str>),
    /// The whole path becomes what operators stand for.
    Formatted(Template),
}

/// A new host.
#[derive(Debug, Clone, PartialEq)]
pub enum HostRewrite {
    /// This one.
    Literal(HeaderValue),
    /// The name of the endpoint, where it has one.
    Endpoint,
    /// The value of this header, or of this part of the request's line.
    Header(Subject),
    /// The path without its query, changed by pattern.
    Path(Substitution),
    /// What operators stand for.
    Formatted(Template),
}

/// A copy of requests, whose answers nobody sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where they go.
    pub cluster: ClusterName,
    /// How many.
    pub share: Percent,
    /// Whether their host stays as it is, rather than to end in `-shadow`.
    pub keeps_host: bool,
    /// Their host.
    pub host: Option<HeaderValue>,
    /// What is changed of their headers.
    pub headers: Arc<Mutations>,
}

impl Mirror {
    /// Copies of so many requests, nothing changed but the host.
    pub fn to(cluster: &str, share: Percent) -> Self {
        Mirror {
            cluster: ClusterName::Fixed(cluster.into()),
            share,
            keeps_host: false,
            host: None,
            headers: Arc::default(),
        }
    }
}

/// Where the caller is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// The answer's status.
    pub status: StatusCode,
    /// A new scheme.
    pub scheme: Option<Arc<str>>,
    /// A new host.
    pub host: Option<Arc<str>>,
    /// A new port.
    pub port: Option<u16>,
    /// A new path.
    pub path: Option<PathRewrite>,
    /// Whether the query is dropped.
    pub strip_query: bool,
    /// Whether the port is kept even where it is the old scheme's own and the scheme is another.
    pub keeps_port: bool,
}

/// An answer given here.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// What its body is made of, in place of it.
    pub body_format: Option<BodyFormat>,
}

impl DirectResponse {
    /// A status and a body.
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        DirectResponse {
            status,
            body: body.into(),
            body_format: None,
        }
    }
}
