//! The proxy's configuration as it is served: one immutable value, replaced as a whole.
//!
//! `DataPlane` builds the next from the previous and swaps it in; a request loads one and stays with it to
//! its end. What has not changed is the same object as before, and what lives (counts, ejections, pools,
//! verdicts) is handed on, so that a change of one thing disturbs nothing else.

pub mod chain;
pub mod choice;
pub mod listener;
pub mod routes;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use self::listener::Listener;
use self::routes::RouteTable;
use crate::cluster::Cluster;
use crate::cluster::zones::vicinity::Vicinity;
use crate::config::cluster::{ClusterConfig, Discovery};
use crate::config::endpoints::EndpointsConfig;
use crate::config::listener::Binding;
use crate::config::{Configuration, Named};
use crate::telemetry::changes::{Change, ConfigurationChanges};

/// What names have been resolved to, by the cluster that needs it.
pub type Resolved = BTreeMap<Arc<str>, Arc<EndpointsConfig>>;

/// The configuration as it is served.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up; for telling snapshots apart.
    pub version: u64,
    /// Listeners, by name.
    pub listeners: Named<Arc<Listener>>,
    /// Routes that listeners name.
    pub routes: Named<Arc<RouteTable>>,
    /// Clusters, by name.
    pub clusters: Named<Arc<Cluster>>,
    /// Where the proxy is, where that makes a difference.
    pub vicinity: Option<Arc<Vicinity>>,
    destinations: HashMap<SocketAddr, Arc<Listener>>,
}

/// Where the current snapshot is found.
pub type CurrentSnapshot = ArcSwap<Snapshot>;

impl Snapshot {
    /// The first, of nothing yet.
    pub fn near(vicinity: Option<Arc<Vicinity>>) -> Self {
        Snapshot {
            vicinity,
            ..Snapshot::default()
        }
    }

    /// The next snapshot.
    pub fn build(previous: &Snapshot, configuration: &Configuration, resolved: &Resolved) -> Self {
        let routes = routes(previous, configuration);
        let listeners = listeners(previous, configuration, &routes);
        Snapshot {
            version: previous.version + 1,
            destinations: destinations(&listeners),
            clusters: clusters(previous, configuration, resolved),
            vicinity: previous.vicinity.clone(),
            listeners,
            routes,
        }
    }

    /// Counts what has changed since another.
    pub fn count_changes(&self, previous: &Snapshot, changes: &ConfigurationChanges) {
        let clusters = self.clusters.iter().map(|(name, cluster)| {
            let before = previous.clusters.get(name)?;
            Some(match is_unchanged(&before.config, &cluster.config) {
                true if Arc::ptr_eq(before, cluster) => Change::None,
                true => Change::Refreshed,
                false => Change::Modified,
            })
        });
        changes
            .clusters
            .count(clusters, gone(&previous.clusters, &self.clusters));
        let listeners = self.listeners.iter().map(|(name, listener)| {
            let before = previous.listeners.get(name)?;
            Some(match is_unchanged(&before.config, &listener.config) {
                true if Arc::ptr_eq(before, listener) => Change::None,
                true => Change::Refreshed,
                false => Change::Modified,
            })
        });
        changes
            .listeners
            .count(listeners, gone(&previous.listeners, &self.listeners));
    }

    /// The virtual listener for connections that were going there: for exactly that address, else for the
    /// port of any address.
    pub fn virtual_listener(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let any: std::net::IpAddr = match destination {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        self.destinations.get(&destination).or_else(|| {
            self.destinations
                .get(&SocketAddr::new(any, destination.port()))
        })
    }
}

/// How many have no successor.
fn gone<T, S: BuildHasher>(
    previous: &HashMap<Arc<str>, T, S>,
    now: &HashMap<Arc<str>, T, S>,
) -> usize {
    let names = previous.keys();
    names.filter(|name| !now.contains_key(*name)).count()
}

/// Compared deeply only where it is not the very same.
pub(crate) fn is_unchanged<T: PartialEq>(one: &Arc<T>, other: &Arc<T>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

fn routes(previous: &Snapshot, configuration: &Configuration) -> Named<Arc<RouteTable>> {
    configuration
        .routes
        .iter()
        .map(|(name, config)| {
            let table = match previous.routes.get(name) {
                Some(before) if is_unchanged(before.config(), config) => Arc::clone(before),
                _ => Arc::new(RouteTable::new(Arc::clone(config))),
            };
            (Arc::clone(name), table)
        })
        .collect()
}

fn listeners(
    previous: &Snapshot,
    configuration: &Configuration,
    routes: &Named<Arc<RouteTable>>,
) -> Named<Arc<Listener>> {
    configuration
        .listeners
        .iter()
        .map(|(name, config)| {
            let before = previous.listeners.get(name);
            let listener = match before {
                Some(before) if before.is_made_of(config, routes) => Arc::clone(before),
                _ => Arc::new(Listener::new(
                    Arc::clone(config),
                    routes,
                    before.map(|listener| &**listener),
                )),
            };
            (Arc::clone(name), listener)
        })
        .collect()
}

fn destinations(listeners: &Named<Arc<Listener>>) -> HashMap<SocketAddr, Arc<Listener>> {
    listeners
        .values()
        .filter(|listener| listener.config.binding == Binding::Virtual)
        .flat_map(|listener| {
            let addresses = listener.config.addresses.iter();
            addresses.map(move |address| (*address, Arc::clone(listener)))
        })
        .collect()
}

fn clusters(
    previous: &Snapshot,
    configuration: &Configuration,
    resolved: &Resolved,
) -> Named<Arc<Cluster>> {
    configuration
        .clusters
        .iter()
        .map(|(name, config)| {
            let discovered = discovered(config, configuration, resolved);
            let before = previous.clusters.get(name);
            let cluster = match before {
                Some(before) if is_current(before, config, discovered.as_ref()) => {
                    Arc::clone(before)
                }
                _ => Arc::new(Cluster::near(
                    Arc::clone(config),
                    discovered,
                    before.map(|cluster| &**cluster),
                    previous.vicinity.clone(),
                )),
            };
            (Arc::clone(name), cluster)
        })
        .collect()
}

fn is_current(
    cluster: &Cluster,
    config: &Arc<ClusterConfig>,
    discovered: Option<&Arc<EndpointsConfig>>,
) -> bool {
    let has_same_endpoints = match (&cluster.discovered, discovered) {
        (Some(one), Some(other)) => is_unchanged(one, other),
        (None, None) => true,
        _ => false,
    };
    has_same_endpoints && is_unchanged(&cluster.config, config)
}

fn discovered(
    config: &ClusterConfig,
    configuration: &Configuration,
    resolved: &Resolved,
) -> Option<Arc<EndpointsConfig>> {
    match &config.discovery {
        Discovery::Static(endpoints) => Some(Arc::clone(endpoints)),
        Discovery::Eds { .. } => config
            .discovery_name()
            .and_then(|name| configuration.endpoints.get(name))
            .cloned(),
        Discovery::StrictDns(endpoints) | Discovery::LogicalDns(endpoints) => {
            Some(resolved.get(&config.name).unwrap_or(endpoints)).cloned()
        }
        Discovery::OriginalDestination => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;
    use crate::config::http::{HttpConfig, RouteSource};
    use crate::config::listener::{
        ChainMatch, Direction, FilterChain, ListenerConfig, NetworkFilter, OverloadPolicy,
    };
    use crate::config::route::RouteConfig;

    fn listener(name: &str, address: &str) -> Arc<ListenerConfig> {
        let http = HttpConfig::new("test", RouteSource::Discovered("routes".into()));
        Arc::new(ListenerConfig {
            name: name.into(),
            addresses: vec![address.parse().expect("an address")],
            sockets: vec![],
            is_transparent: false,
            binding: Binding::Virtual,
            network: Network::Sandbox,
            direction: Direction::Outbound,
            use_original_destination: false,
            proxy_header: None,
            original_source: None,
            filter_chains: vec![],
            default_chain: Some(FilterChain {
                name: "".into(),
                matches: ChainMatch::default(),
                tls: None,
                gates: vec![],
                filter: NetworkFilter::Http(Arc::new(http)),
            }),
            inspect_http: false,
            inspect_tls: false,
            stat_name: None,
            max_connections: None,
            overload: OverloadPolicy::Heeded,
            access_logs: Arc::new([]),
        })
    }

    fn configuration() -> Configuration {
        let mut configuration = Configuration::default();
        for listener in [
            listener("a", "240.240.0.1:80"),
            listener("any", "0.0.0.0:90"),
        ] {
            configuration
                .listeners
                .insert(Arc::clone(&listener.name), listener);
        }
        let cluster = ClusterConfig::new("a", Discovery::Eds { service_name: None });
        configuration.clusters.insert("a".into(), Arc::new(cluster));
        configuration
    }

    fn routes() -> Arc<RouteConfig> {
        Arc::new(RouteConfig::new("routes", vec![]))
    }

    #[test]
    fn what_has_not_changed_is_the_same_object() {
        let mut configuration = configuration();
        let first = Snapshot::build(&Snapshot::default(), &configuration, &Resolved::new());

        let endpoints = EndpointsConfig::default();
        configuration
            .endpoints
            .insert("a".into(), Arc::new(endpoints));
        let second = Snapshot::build(&first, &configuration, &Resolved::new());

        assert!(Arc::ptr_eq(&first.listeners["a"], &second.listeners["a"]));
        assert!(!Arc::ptr_eq(&first.clusters["a"], &second.clusters["a"]));
        assert!(Arc::ptr_eq(
            first.clusters["a"].breakers.counts(),
            second.clusters["a"].breakers.counts()
        ));
    }

    #[test]
    fn a_listener_follows_the_routes_it_names_and_keeps_its_live_state() {
        let mut configuration = configuration();
        let first = Snapshot::build(&Snapshot::default(), &configuration, &Resolved::new());

        configuration.routes.insert("routes".into(), routes());
        let second = Snapshot::build(&first, &configuration, &Resolved::new());
        let third = Snapshot::build(&second, &configuration, &Resolved::new());

        assert!(!Arc::ptr_eq(&first.listeners["a"], &second.listeners["a"]));
        assert!(Arc::ptr_eq(
            &first.listeners["a"].live,
            &second.listeners["a"].live
        ));
        assert!(Arc::ptr_eq(&second.listeners["a"], &third.listeners["a"]));
    }

    #[test]
    fn a_destination_is_looked_up_by_address_then_by_port() {
        let snapshot = Snapshot::build(&Snapshot::default(), &configuration(), &Resolved::new());
        let found = |destination: &str| {
            let destination = destination.parse().expect("an address");
            snapshot
                .virtual_listener(destination)
                .map(|listener| &*listener.config.name)
        };

        assert_eq!(found("240.240.0.1:80"), Some("a"));
        assert_eq!(found("240.240.0.2:90"), Some("any"));
        assert_eq!(found("240.240.0.2:80"), None);
    }
}
