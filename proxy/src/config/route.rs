//! Routes: which requests go where.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::filter::FilterOverrides;
use super::headers::HeaderMutations;
use super::matching::{HeaderMatch, Pattern, Substitution, TextMatch};
use super::percent::Percent;
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
}

/// A test of one query parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatch {
    /// Which.
    pub name: Arc<str>,
    /// Of its value, undecoded; `None`: that it is there.
    pub value: Option<TextMatch>,
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
    /// The new path.
    pub path: Option<PathRewrite>,
    /// The new host.
    pub host: Option<HostRewrite>,
    /// From the whole request to the whole response.
    pub timeout: Option<Duration>,
    /// How long neither side may say anything.
    pub idle_timeout: Option<Duration>,
    /// When it is tried again.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Copies.
    pub mirrors: Vec<Mirror>,
    /// The answer where the cluster does not exist; Envoy's default is 503.
    pub cluster_not_found: StatusCode,
}

impl Forward {
    /// To a cluster, nothing changed, no limits.
    pub fn to(cluster: &str) -> Self {
        Forward {
            target: Target::Cluster(cluster.into()),
            path: None,
            host: None,
            timeout: None,
            idle_timeout: None,
            retry: None,
            mirrors: vec![],
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
}

/// One of several clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// Its name.
    pub cluster: Arc<str>,
    /// Its share, of the sum of all.
    pub weight: u32,
    /// For requests that go there.
    pub request_headers: HeaderMutations,
    /// For their responses.
    pub response_headers: HeaderMutations,
    /// Filters configured for this cluster only.
    pub filters: FilterOverrides,
}

impl WeightedClusters {
    /// `None` where the weights sum to nothing or to more than `u32` holds.
    pub fn new(clusters: Vec<WeightedCluster>) -> Option<Self> {
        let total = clusters
            .iter()
            .try_fold(0_u32, |total, each| total.checked_add(each.weight))?;
        (total > 0).then_some(WeightedClusters { clusters, total })
    }

    /// All of them.
    pub fn clusters(&self) -> &[WeightedCluster] {
        &self.clusters
    }

    /// All of them, to be completed.
    pub fn clusters_mut(&mut self) -> &mut [WeightedCluster] {
        &mut self.clusters
    }

    /// The one that a number, drawn evenly from all of `u32`, falls to.
    pub fn choose(&self, drawn: u32) -> &WeightedCluster {
        let mut point = drawn % self.total;
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
}

/// A copy of requests, whose answers nobody sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Where they go.
    pub cluster: Arc<str>,
    /// How many.
    pub share: Percent,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(cluster: &str, weight: u32) -> WeightedCluster {
        WeightedCluster {
            cluster: cluster.into(),
            weight,
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            filters: FilterOverrides::default(),
        }
    }

    #[test]
    fn each_cluster_is_chosen_by_its_share_of_the_numbers() {
        let clusters = WeightedClusters::new(vec![
            weighted("a", 90),
            weighted("none", 0),
            weighted("b", 10),
        ])
        .expect("valid");

        assert_eq!(&*clusters.choose(0).cluster, "a");
        assert_eq!(&*clusters.choose(89).cluster, "a");
        assert_eq!(&*clusters.choose(90).cluster, "b");
        assert_eq!(&*clusters.choose(100).cluster, "a");
    }

    #[test]
    fn weights_that_sum_to_nothing_or_too_much_are_refused() {
        assert_eq!(WeightedClusters::new(vec![weighted("a", 0)]), None);
        assert_eq!(
            WeightedClusters::new(vec![weighted("a", u32::MAX), weighted("b", 1)]),
            None
        );
    }
}
