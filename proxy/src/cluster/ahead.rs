//! Choices made before the requests that they are for, so that connections can be made to the endpoints ahead of need
//! (Envoy's `predictive_preconnect_ratio`).
//!
//! `upstream` peeks, and later requests go where was peeked, in that order. A picture has its own: what was chosen
//! ahead is forgotten when endpoints or their health change.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::Cluster;
use super::balancer::Draw;
use super::breaker::Gauge;
use super::endpoint::Endpoint;
use super::priorities::Priorities;
use crate::random;

/// Endpoints that the next requests go to.
#[derive(Debug)]
pub struct Ahead {
    chosen: Mutex<VecDeque<Arc<Endpoint>>>,
    /// No more than there are endpoints, as in Envoy.
    limit: usize,
}

impl Ahead {
    /// Among so many endpoints.
    pub fn among(count: usize) -> Self {
        Ahead {
            chosen: Mutex::default(),
            limit: count,
        }
    }

    /// The next choice, where it was made and has not been tried.
    pub(super) fn take(&self, draw: &Draw<'_>) -> Option<Arc<Endpoint>> {
        if !draw.left.is_empty() {
            return None;
        }
        let next = self.chosen.lock().pop_front()?;
        draw.may_take(&next).then_some(next)
    }

    fn add(&self, choose: impl FnOnce() -> Option<Arc<Endpoint>>) -> Option<Arc<Endpoint>> {
        let mut chosen = self.chosen.lock();
        if chosen.len() >= self.limit {
            return None;
        }
        let next = choose()?;
        chosen.push_back(Arc::clone(&next));
        Some(next)
    }
}

impl Cluster {
    /// Chooses the endpoint of a request that has not come yet. Nothing where choices cannot be made ahead, or as many
    /// as there are endpoints have been.
    pub fn peek(&self, now: Instant) -> Option<Arc<Endpoint>> {
        let picture = self.picture.load();
        let draw = Draw {
            hash: None,
            avoid: &[],
            omit: None,
            left: Priorities::NONE,
            active: self.breakers.counts().current(Gauge::Requests),
            now,
        };
        let choose = || random::with(|random| picture.all.choose(&draw, random).cloned());
        picture.ahead.as_ref()?.add(choose)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::cluster::Pick;
    use crate::config::balancing::Balancer;
    use crate::config::cluster::{ClusterConfig, Discovery};
    use crate::config::endpoints::{EndpointConfig, EndpointsConfig, LocalityConfig};

    fn cluster(balancer: Balancer) -> Cluster {
        let endpoints = EndpointsConfig {
            name: "reviews".into(),
            policy: Default::default(),
            localities: vec![LocalityConfig {
                locality: Default::default(),
                priority: 0,
                weight: 0,
                endpoints: (1..=3)
                    .map(|port| EndpointConfig::at(([127, 0, 0, 1], port).into()))
                    .collect(),
            }],
        };
        let endpoints = Arc::new(endpoints);
        let discovery = Discovery::Static(Arc::clone(&endpoints));
        let config = ClusterConfig {
            balancer,
            predictive_preconnect_ratio: Some(2.0),
            ..ClusterConfig::new("reviews", discovery)
        };
        Cluster::new(Arc::new(config), Some(endpoints), None)
    }

    fn address(endpoint: Option<Arc<Endpoint>>) -> Option<SocketAddr> {
        endpoint.map(|endpoint| endpoint.address)
    }

    #[test]
    fn requests_go_where_was_peeked_in_the_same_order() {
        let now = Instant::now();
        for balancer in [
            Balancer::RoundRobin,
            Balancer::Random,
            Balancer::LEAST_REQUEST,
        ] {
            let cluster = cluster(balancer);
            for _ in 0..20 {
                let peeked = [address(cluster.peek(now)), address(cluster.peek(now))];
                let chosen = [0, 1].map(|_| address(cluster.pick(Pick::at(now)).ok()));
                assert!(peeked[0].is_some());
                assert_eq!(chosen, peeked);
            }
        }
    }

    #[test]
    fn no_more_choices_are_made_ahead_than_there_are_endpoints() {
        let cluster = cluster(Balancer::RoundRobin);
        let now = Instant::now();

        let peeked = (0..10).filter(|_| cluster.peek(now).is_some()).count();

        assert_eq!(peeked, 3);
    }

    #[test]
    fn what_was_tried_is_not_tried_again_though_it_was_chosen_ahead() {
        let cluster = cluster(Balancer::RoundRobin);
        let now = Instant::now();
        let tried = [address(cluster.peek(now)).expect("one")];

        let chosen = cluster.pick(Pick {
            avoid: &tried,
            ..Pick::at(now)
        });

        assert_ne!(address(chosen.ok()), Some(tried[0]));
    }

    #[test]
    fn a_choice_that_depends_on_the_request_is_not_made_ahead() {
        let cluster = cluster(Balancer::Maglev { table_size: 65_537 });

        assert!(cluster.peek(Instant::now()).is_none());
    }
}
