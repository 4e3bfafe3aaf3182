//! Priorities that retries keep away from, because they were tried (Envoy's `previous_priorities`).

use std::net::SocketAddr;
use std::num::NonZeroU32;

use crate::cluster::Cluster;
use crate::cluster::priorities::Priorities;

/// Where the tries of a request have been.
#[derive(Debug, Default)]
pub(super) struct Visited {
    endpoints: Vec<SocketAddr>,
    left: Priorities,
}

impl Visited {
    /// Priorities that the next try leaves out.
    pub(super) fn left(&self) -> Priorities {
        self.left
    }

    /// A try has been to an endpoint. After every so many tries, the priorities of all of them are left out; once none
    /// is left that can be used, it begins anew.
    pub(super) fn add(&mut self, endpoint: SocketAddr, every: NonZeroU32, cluster: &Cluster) {
        self.endpoints.push(endpoint);
        let is_due = self.endpoints.len().is_multiple_of(every.get() as usize);
        if !is_due {
            return;
        }
        let priorities = self.endpoints.iter();
        let priorities = priorities.filter_map(|endpoint| cluster.priority_at(*endpoint));
        self.left = priorities.fold(self.left, Priorities::and);
        if !cluster.has_other_priorities(self.left) {
            *self = Visited::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::cluster::{ClusterConfig, Discovery};
    use crate::config::endpoints::{EndpointConfig, EndpointsConfig, LocalityConfig};

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    /// One endpoint of each priority, at the port that is one more.
    fn cluster(priorities: u16) -> Cluster {
        let localities = (0..priorities).map(|priority| LocalityConfig {
            locality: Default::default(),
            priority: priority.into(),
            weight: 0,
            endpoints: vec![EndpointConfig::at(at(priority + 1))],
        });
        let endpoints = EndpointsConfig {
            name: "reviews".into(),
            policy: Default::default(),
            localities: localities.collect(),
        };
        let config = ClusterConfig::new("reviews", Discovery::Eds { service_name: None });
        Cluster::new(Arc::new(config), Some(Arc::new(endpoints)), None)
    }

    #[test]
    fn every_other_try_leaves_out_what_was_tried() {
        let (cluster, every) = (cluster(3), NonZeroU32::new(2).expect("more than 0"));
        let mut visited = Visited::default();

        visited.add(at(1), every, &cluster);
        assert!(visited.left().is_empty());
        visited.add(at(1), every, &cluster);
        assert_eq!(visited.left(), Priorities::NONE.and(0));
        visited.add(at(2), every, &cluster);
        assert_eq!(visited.left(), Priorities::NONE.and(0));
        visited.add(at(2), every, &cluster);
        assert_eq!(visited.left(), Priorities::NONE.and(0).and(1));
    }

    #[test]
    fn what_was_tried_is_tried_again_once_nothing_else_is_left() {
        let (cluster, every) = (cluster(2), NonZeroU32::MIN);
        let mut visited = Visited::default();

        visited.add(at(1), every, &cluster);
        visited.add(at(2), every, &cluster);

        assert!(visited.left().is_empty());
    }
}
