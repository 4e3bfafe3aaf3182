//! Clusters as they live: endpoints, who among them may be used, what is in flight, what went wrong.
//!
//! `snapshot` makes one from its configuration and its predecessor, and keeps it while neither it nor its
//! endpoints change. `http` and `tcp` pick endpoints from it and record outcomes. Everything that counts is
//! shared by all workers, and handed on from predecessor to successor.

pub mod ahead;
pub mod arrangement;
pub mod balancer;
pub mod breaker;
pub mod connections;
pub mod discovery;
pub mod endpoint;
pub mod hash;
pub mod health;
pub mod latency;
pub mod loads;
pub mod members;
pub mod original;
mod outcomes;
pub mod outlier;
mod pick;
pub mod picture;
pub mod priorities;
pub mod slot;
pub mod stats;
pub mod subsets;
pub mod turns;
mod upkeep;
pub mod zones;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::arrangement::plan::KeptTurns;
use self::breaker::Breakers;
use self::discovery::Transports;
use self::endpoint::Endpoint;
use self::members::Members;
use self::original::OriginalDestinations;
use self::picture::Picture;
use self::priorities::Priorities;
use self::stats::ClusterStats;
use self::zones::vicinity::Vicinity;
use crate::config::affinity::Priority;
use crate::config::balancing::{Criteria, Omission};
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
    /// What may be in flight of requests of high priority.
    pub urgent_breakers: Breakers,
    members: Members,
    picture: ArcSwap<Picture>,
    transports: Transports,
    originals: OriginalDestinations,
    vicinity: Option<Arc<Vicinity>>,
    shared: Arc<Shared>,
}

/// What is handed on from a cluster to its successor.
#[derive(Debug, Default)]
struct Shared {
    /// Whose turn it is. Locked while a picture is made, so that the last one made is the last one shown.
    turns: Mutex<KeptTurns>,
    /// Whether the health of an endpoint has changed since the last picture.
    is_dirty: AtomicBool,
    /// Told when something has to be looked after.
    keeper: Mutex<Option<Arc<Notify>>>,
    /// When rates of outliers were last judged, on the scale of [`outlier::millis`].
    judged: AtomicU64,
}

/// What the choice of an endpoint depends on.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    /// Where the connection was going, before it was redirected.
    pub original_destination: Option<SocketAddr>,
    /// Endpoints that have been tried.
    pub avoid: &'a [SocketAddr],
    /// Endpoints that are passed over while there are others, by their labels.
    pub omit: Option<&'a Omission>,
    /// Priorities that are left out while there are others.
    pub left: Priorities,
    /// Now.
    pub now: Instant,
    /// What the request has in common with others that belong to the same endpoint.
    pub hash: Option<u64>,
    /// What labels the endpoint must have.
    pub subset: Option<&'a Criteria>,
    /// The endpoint that its session is at.
    pub session: Option<Session>,
}

/// The endpoint that a session is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its address.
    pub address: SocketAddr,
    /// Whether no other will do.
    pub is_strict: bool,
}

impl<'a> Pick<'a> {
    /// Of nothing particular.
    pub fn at(now: Instant) -> Pick<'a> {
        Pick {
            original_destination: None,
            avoid: &[],
            omit: None,
            left: Priorities::NONE,
            now,
            hash: None,
            subset: None,
            session: None,
        }
    }
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
    /// None has the labels.
    #[error("none of its endpoints is in the subset that the route asks for")]
    NoSubset,
    /// The control plane wants a share of the requests refused.
    #[error("it is overloaded, and refuses a share of the requests")]
    Dropped,
    /// The endpoint of the session is gone.
    #[error("the endpoint of the session may not be used, and no other will do")]
    SessionLost,
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
        Self::near(config, discovered, previous, None)
    }

    /// The same, of a proxy that knows its surroundings.
    pub fn near(
        config: Arc<ClusterConfig>,
        discovered: Option<Arc<EndpointsConfig>>,
        previous: Option<&Cluster>,
        vicinity: Option<Arc<Vicinity>>,
    ) -> Self {
        let counts = previous.map(|previous| Arc::clone(previous.breakers.counts()));
        let urgent = previous.map(|previous| Arc::clone(previous.urgent_breakers.counts()));
        let transports = Transports::new(&config, previous.map(|previous| &previous.transports));
        let members = discovery::endpoints(
            discovered.as_deref(),
            &config,
            &transports,
            previous.map(|previous| &previous.members),
        );
        let stats = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.stats));
        let none = Members::default();
        let before = previous.map_or(&none, |previous| &previous.members);
        if !before.has_same_addresses(&members) {
            ClusterStats::count(&stats.membership_changes);
        }
        let is_told = !matches!(config.discovery, Discovery::Static(_)) && discovered.is_some();
        let known = previous.and_then(|previous| previous.discovered.as_ref());
        if is_told && known != discovered.as_ref() {
            ClusterStats::count(&stats.updates);
        }
        let originals = match previous {
            Some(previous) if previous.transports.is_same(&transports) => {
                previous.originals.clone()
            }
            _ => OriginalDestinations::default(),
        };
        let cluster = Cluster {
            breakers: Breakers::new(config.breakers.clone(), counts.unwrap_or_default()),
            urgent_breakers: Breakers::new(
                config.urgent_breakers.clone(),
                urgent.unwrap_or_default(),
            ),
            stats,
            members,
            picture: ArcSwap::default(),
            transports,
            originals,
            vicinity,
            shared: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.shared)),
            config,
            discovered,
        };
        cluster.refresh(Instant::now());
        cluster
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// What counts against the limits of a priority.
    pub fn breakers_of(&self, priority: Priority) -> &Breakers {
        match priority {
            Priority::Default => &self.breakers,
            Priority::High => &self.urgent_breakers,
        }
    }

    /// Where a request was going: where its header says, where that may say so, else where its connection was.
    pub fn original_destination(
        &self,
        headers: &http::HeaderMap,
        of_connection: Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        let said = self
            .config
            .original
            .header
            .as_ref()
            .and_then(|name| headers.get(name));
        let said = said.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        said.or(of_connection)
    }

    /// All endpoints, also those that may not be used now.
    pub fn endpoints(&self) -> impl Iterator<Item = Arc<Endpoint>> + '_ {
        let known = self.members.endpoints().cloned();
        known.chain(self.originals.endpoints())
    }

    /// The priority of an endpoint; that of one that was found by its original destination is 0.
    pub fn priority_of(&self, endpoint: &Endpoint) -> u32 {
        let mut members = self.members.all().iter();
        let member = members.find(|member| std::ptr::eq(&*member.endpoint, endpoint));
        member.map_or(0, |member| member.priority)
    }

    /// The endpoint at an address.
    pub fn endpoint_at(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.members.at(address)
    }

    /// How many subsets there are.
    pub fn subsets(&self) -> usize {
        let picture = self.picture.load();
        picture.subsets.as_ref().map_or(0, |subsets| subsets.len())
    }

    /// Whether a priority has too few usable endpoints to choose among.
    pub fn panics(&self) -> bool {
        self.picture.load().all.panics()
    }

    /// Forgets original destinations that are no longer used.
    pub fn forget_unused(&self, is_unused: impl Fn(&Endpoint) -> bool) {
        self.originals.retain(|endpoint| !is_unused(endpoint));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::outlier::Outcome;
    use super::*;
    use crate::config::cluster::outlier::OutlierDetection;
    use crate::config::endpoints::{EndpointConfig, LocalityConfig};
    use crate::config::percent::Percent;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn discovered(ports: &[u16]) -> Option<Arc<EndpointsConfig>> {
        Some(Arc::new(EndpointsConfig {
            name: "reviews".into(),
            policy: Default::default(),
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
        Pick::at(now)
    }

    fn picked(cluster: &Cluster, now: Instant) -> Vec<u16> {
        cluster.refresh(now);
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
