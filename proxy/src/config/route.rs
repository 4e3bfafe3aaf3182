//! Routes: which requests go where.

pub mod conditions;
pub mod internal_redirect;
pub mod limits;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use self::conditions::{CertificateMatch, CookieMatch, TlsRequirement};
use self::internal_redirect::InternalRedirects;
use self::limits::{GrpcTimeout, StreamDuration};
use super::affinity::AimConfig;
use super::filter::FilterOverrides;
use super::filter::header_mutation::Mutations;
use super::headers::HeaderMutations;
use super::matching::{HeaderMatch, MetadataMatch, Pattern, Substitution, TextMatch};
use super::percent::Percent;
use super::retry::RetryPolicy;
use crate::telemetry::access_log::format::{Format, Template};

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
    /// For every request.
    pub request_headers: HeaderMutations,
    /// For every response.
    pub response_headers: HeaderMutations,
    /// Filters configured for this route only.
    pub filters: FilterOverrides,
}

impl Route {
    /// What becomes of which requests, and nothing else said.
    pub fn new(name: &str, matches: RouteMatch, action: RouteAction) -> Self {
        Route {
            name: name.into(),
            matches,
            action,
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            filters: FilterOverrides::default(),
        }
    }
}

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

/// Clusters and their shares. At least one has a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedClusters {
    clusters: Vec<WeightedCluster>,
    total: u32,
    drawn_by: Option<HeaderName>,
}

/// One of several clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// Which cluster; not a weighted one.
    pub target: ClusterName,
    /// Its share, of the sum of all.
    pub weight: u32,
    /// For requests that go there.
    pub request_headers: HeaderMutations,
    /// For their responses.
    pub response_headers: HeaderMutations,
    /// Filters configured for this cluster only.
    pub filters: FilterOverrides,
    /// The new host, in place of the route's.
    pub host: Option<HeaderValue>,
}

/// How a cluster is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterName {
    /// So.
    Fixed(Arc<str>),
    /// By this header.
    Header(HeaderName),
}

impl ClusterName {
    /// The name where it does not depend on the request.
    pub fn fixed(&self) -> Option<&Arc<str>> {
        match self {
            ClusterName::Fixed(name) => Some(name),
            ClusterName::Header(_) => None,
        }
    }
}

impl WeightedCluster {
    /// A cluster and its share, and nothing else said.
    pub fn new(cluster: &str, weight: u32) -> Self {
        WeightedCluster {
            target: ClusterName::Fixed(cluster.into()),
            weight,
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            filters: FilterOverrides::default(),
            host: None,
        }
    }
}

impl WeightedClusters {
    /// `None` where the weights sum to nothing or to more than `u32` holds.
    pub fn new(clusters: Vec<WeightedCluster>) -> Option<Self> {
        let total = clusters
            .iter()
            .try_fold(0_u32, |total, each| total.checked_add(each.weight))?;
        (total > 0).then_some(WeightedClusters {
            clusters,
            total,
            drawn_by: None,
        })
    }

    /// The number by which a cluster is chosen is the value of this header, where it is one.
    #[must_use]
    pub fn drawn_by(mut self, header: HeaderName) -> Self {
        self.drawn_by = Some(header);
        self
    }

    /// The header whose value chooses.
    pub fn drawing_header(&self) -> Option<&HeaderName> {
        self.drawn_by.as_ref()
    }

    /// All of them.
    pub fn clusters(&self) -> &[WeightedCluster] {
        &self.clusters
    }

    /// All of them, to be completed.
    pub fn clusters_mut(&mut self) -> &mut [WeightedCluster] {
        &mut self.clusters
    }

    /// The one that a number, drawn evenly from all, falls to.
    pub fn choose(&self, drawn: u64) -> &WeightedCluster {
        // The remainder is less than the total, which is a u32.
        #[allow(clippy::cast_possible_truncation, reason = "less than a u32")]
        let mut point = (drawn % u64::from(self.total)) as u32;
        for cluster in &self.clusters {
            if point < cluster.weight {
                return cluster;
            }
            point -= cluster.weight;
        }
        // The point is below the sum of the weights, so that one of them was above it.
        &self.clusters[0]
    }
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
    /// The value of this header.
    Header(HeaderName),
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
}

/// An answer given here.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// What its body is made of, in place of it.
    pub format: Option<Arc<Format>>,
    /// Its content type, where the format says.
    pub content_type: Option<HeaderValue>,
}

impl DirectResponse {
    /// A status and a body.
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        DirectResponse {
            status,
            body: body.into(),
            format: None,
            content_type: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_is_chosen_by_its_share_of_the_numbers() {
        let clusters = WeightedClusters::new(vec![
            WeightedCluster::new("a", 90),
            WeightedCluster::new("none", 0),
            WeightedCluster::new("b", 10),
        ])
        .expect("valid");

        let chosen = |drawn| match &clusters.choose(drawn).target {
            ClusterName::Fixed(name) => name.to_string(),
            ClusterName::Header(name) => name.to_string(),
        };
        assert_eq!([0, 89, 90, 100].map(chosen), ["a", "a", "b", "a"]);
    }

    #[test]
    fn weights_that_sum_to_nothing_or_too_much_are_refused() {
        assert_eq!(
            WeightedClusters::new(vec![WeightedCluster::new("a", 0)]),
            None
        );
        assert_eq!(
            WeightedClusters::new(vec![
                WeightedCluster::new("a", u32::MAX),
                WeightedCluster::new("b", 1)
            ]),
            None
        );
    }
}
