//! Clusters that share the requests of a route by weight.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::config::balancing::Criteria;
use crate::config::filter::FilterOverrides;
use crate::config::headers::HeaderMutations;

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
    /// What labels the endpoint must have, in place of what the route says.
    pub subset: Option<Arc<Criteria>>,
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
            subset: None,
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
