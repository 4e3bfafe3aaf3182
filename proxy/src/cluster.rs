//! Clusters as they live: endpoints, who among them may be used, what is in flight, what went wrong.
//!
//! `snapshot` makes one from its configuration and its predecessor, and keeps it while neither it nor its
//! endpoints change. `http` and `tcp` pick endpoints from it and record outcomes. Everything that counts is
//! shared by all workers, and handed on from predecessor to successor.

pub mod balancer;
pub mod breaker;
pub mod discovery;
pub mod endpoint;
pub mod original;
pub mod outlier;
pub mod priority;
pub mod random;
pub mod slot;
pub mod stats;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use self::breaker::Breakers;
use self::discovery::Transports;
use self::endpoint::Endpoint;
use self::original::OriginalDestinations;
use self::outlier::{Outcome, millis};
use self::priority::Priorities;
use self::stats::ClusterStats;
use crate::config::cluster::{ClusterConfig, Discovery};
use crate::config::endpoints::EndpointsConfig;

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    /// As configured.
    pub config: Arc<ClusterConfig>,
    /// The endpoints it was made with; none where nothing has been discovered yet.
    pub discovered: Option<Arc<EndpointsConfig>>,
    /// What may be in flight.
    pub breakers: Breakers,
    /// What has happened.
    pub stats: Arc<ClusterStats>,
    priorities: Priorities,
    transports: Transports,
    originals: OriginalDestinations,
    shared: Arc<Shared>,
}

/// What is handed on from a cluster to its successor.
#[derive(Debug, Default)]
struct Shared {
    /// Whose turn it is.
    turn: AtomicU64,
    /// When the last ejection ends: before that, endpoints must be asked one by one.
    ejected_until: AtomicU64,
}

/// What the choice of an endpoint depends on.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    /// Where the connection was going, before it was redirected.
    pub original_destination: Option<SocketAddr>,
    /// Endpoints that have been tried.
    pub avoid: &'a [SocketAddr],
    /// Now.
    pub now: Instant,
}

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// None is known.
    #[error("it has no endpoints")]
    Empty,
    /// None of those known may be used.
    #[error("none of its endpoints may be used: they are unhealthy or draining")]
    Unhealthy,
    /// The connection was not redirected, so that nobody knows where it was going.
    #[error("the connection has no original destination")]
    NoOriginalDestination,
}

impl Cluster {
    /// A cluster with what is known of its endpoints, going on from its predecessor.
    pub fn new(
        config: Arc<ClusterConfig>,
        discovered: Option<Arc<EndpointsConfig>>,
        previous: Option<&Cluster>,
    ) -> Self {
        let counts = previous.map(|previous| Arc::clone(previous.breakers.counts()));
        let transports = Transports::new(&config, previous.map(|previous| &previous.transports));
        let known = discovery::endpoints(
            discovered.as_deref(),
            &config,
            &transports,
            previous.map(|previous| &previous.priorities),
        );
        let originals = match previous {
            Some(previous) if previous.transports.is_same(&transports) => {
                previous.originals.clone()
            }
            _ => OriginalDestinations::default(),
        };
        Cluster {
            breakers: Breakers::new(config.breakers.clone(), counts.unwrap_or_default()),
            stats: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.stats)),
            priorities: known,
            transports,
            originals,
            shared: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.shared)),
            config,
            discovered,
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// The endpoint for the next request.
    pub fn pick(&self, pick: Pick<'_>) -> Result<Arc<Endpoint>, NoEndpoint> {
        if self.config.discovery == Discovery::OriginalDestination {
            let address = pick
                .original_destination
                .ok_or(NoEndpoint::NoOriginalDestination)?;
            return Ok(self.originals.endpoint(address, &self.transports));
        }
        let has_ejected = millis(pick.now) < self.shared.ejected_until.load(Ordering::Relaxed);
        let choice = priority::Choice {
            balancer: self.config.balancer,
            panic_threshold: self.config.panic_threshold,
            turn: &self.shared.turn,
            avoid: pick.avoid,
            has_ejected,
            now: pick.now,
        };
        random::with(|random| self.priorities.choose(&choice, random))
    }

    /// Records how a request to an endpoint ended; ejects the endpoint where that was one failure too many.
    pub fn record(&self, endpoint: &Endpoint, outcome: Outcome, now: Instant) {
        if outcome != Outcome::Success {
            endpoint.state.count_failure();
        }
        let Some(config) = &self.config.outlier_detection else {
            return;
        };
        if !endpoint.state.outlier.record(outcome, config) || endpoint.state.outlier.is_ejected(now)
        {
            return;
        }
        if !self.may_eject_another(now) {
            ClusterStats::count(&self.stats.ejections_refused);
            return;
        }
        let until = endpoint.state.outlier.eject(config, now);
        self.shared
            .ejected_until
            .fetch_max(until, Ordering::Relaxed);
        ClusterStats::count(&self.stats.ejections);
        tracing::info!(cluster = %self.name(), endpoint = %endpoint.address, "endpoint ejected");
    }

    /// All endpoints, also those that may not be used now.
    pub fn endpoints(&self) -> impl Iterator<Item = Arc<Endpoint>> + '_ {
        let known = self.priorities.endpoints().cloned();
        known.chain(self.originals.endpoints())
    }

    /// Forgets original destinations that are no longer used.
    pub fn forget_unused(&self, is_unused: impl Fn(&Endpoint) -> bool) {
        self.originals.retain(|endpoint| !is_unused(endpoint));
    }

    /// One may always be out; beyond that, no more than the configured share.
    fn may_eject_another(&self, now: Instant) -> bool {
        let Some(config) = &self.config.outlier_detection else {
            return false;
        };
        let (mut all, mut ejected) = (0, 0);
        for endpoint in self.priorities.endpoints() {
            all += 1;
            ejected += usize::from(endpoint.state.outlier.is_ejected(now));
        }
        ejected == 0 || ejected < config.max_ejection_percent.share_of(all)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::cluster::OutlierDetection;
    use crate::config::endpoints::{EndpointConfig, LocalityConfig};
    use crate::config::percent::Percent;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn discovered(ports: &[u16]) -> Option<Arc<EndpointsConfig>> {
        Some(Arc::new(EndpointsConfig {
            name: "reviews".into(),
            localities: vec![LocalityConfig {
                locality: Default::default(),
                priority: 0,
                weight: 0,
                endpoints: ports
                    .iter()
                    .map(|port| EndpointConfig::at(address(*port)))
                    .collect(),
            }],
        }))
    }

    fn config() -> ClusterConfig {
        ClusterConfig {
            outlier_detection: Some(OutlierDetection {
                consecutive_5xx: 1,
                max_ejection_percent: Percent::of(50),
                ..OutlierDetection::default()
            }),
            ..ClusterConfig::new("reviews", Discovery::Eds { service_name: None })
        }
    }

    fn pick(now: Instant) -> Pick<'static> {
        Pick {
            original_destination: None,
            avoid: &[],
            now,
        }
    }

    fn picked(cluster: &Cluster, now: Instant) -> Vec<u16> {
        let mut ports: Vec<_> = (0..20)
            .map(|_| cluster.pick(pick(now)).expect("an endpoint").address.port())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    #[test]
    fn an_ejected_endpoint_is_not_picked_until_its_time_is_over() {
        let cluster = Cluster::new(Arc::new(config()), discovered(&[1, 2]), None);
        let now = Instant::now() + Duration::from_secs(1);
        let failing = cluster.endpoints().next().expect("one");

        cluster.record(&failing, Outcome::ServerError, now);

        assert_eq!(picked(&cluster, now), [2]);
        assert_eq!(picked(&cluster, now + Duration::from_secs(31)), [1, 2]);
    }

    #[test]
    fn no_more_than_the_configured_share_is_ejected() {
        let cluster = Cluster::new(Arc::new(config()), discovered(&[1, 2, 3]), None);
        let now = Instant::now() + Duration::from_secs(1);

        for endpoint in cluster.endpoints() {
            cluster.record(&endpoint, Outcome::ServerError, now);
        }

        assert_eq!(picked(&cluster, now), [2, 3]);
        assert_eq!(cluster.stats.ejections_refused.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_lives_on_an_endpoint_survives_new_endpoints_and_new_configuration() {
        let first = Cluster::new(Arc::new(config()), discovered(&[1, 2]), None);
        let now = Instant::now() + Duration::from_secs(1);
        let failing = first.endpoints().next().expect("one");
        let _active = failing.state.begin();
        first.record(&failing, Outcome::ServerError, now);

        let changed = ClusterConfig {
            connect_timeout: Duration::from_secs(1),
            ..config()
        };
        let second = Cluster::new(Arc::new(changed), discovered(&[2, 1, 3]), Some(&first));

        assert_eq!(picked(&second, now), [2, 3]);
        let kept = second
            .endpoints()
            .find(|endpoint| endpoint.address.port() == 1);
        let kept = kept.expect("it is still there");
        assert_eq!(kept.state.active(), 1);
        assert!(Arc::ptr_eq(&kept.connections, &failing.connections));
    }

    #[test]
    fn an_endpoint_tried_before_is_avoided_while_there_is_another() {
        let cluster = Cluster::new(Arc::new(config()), discovered(&[1, 2]), None);
        let now = Instant::now();
        let avoiding = |avoid: &[SocketAddr]| {
            let pick = Pick { avoid, ..pick(now) };
            cluster.pick(pick).expect("an endpoint").address.port()
        };

        assert!((0..20).all(|_| avoiding(&[address(1)]) == 2));
        assert!(avoiding(&[address(1), address(2)]) <= 2);
    }

    #[test]
    fn an_original_destination_is_its_own_endpoint() {
        let config = ClusterConfig::new("passthrough", Discovery::OriginalDestination);
        let cluster = Cluster::new(Arc::new(config), None, None);
        let to = |port| Pick {
            original_destination: Some(address(port)),
            ..pick(Instant::now())
        };

        let first = cluster.pick(to(9)).expect("it");
        assert_eq!(first.address, address(9));
        assert!(Arc::ptr_eq(&first, &cluster.pick(to(9)).expect("it again")));
        let none = cluster.pick(pick(Instant::now()));
        assert_eq!(none.err(), Some(NoEndpoint::NoOriginalDestination));
    }
}
