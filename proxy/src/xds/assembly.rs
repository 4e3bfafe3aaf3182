//! From resources to one configuration that is whole: what is pointed at is there before what points at it.
//!
//! - A cluster joins when its endpoints are known; until then the one it replaces stays.
//! - Routes join when all clusters they name are there; a listener, when its routes and clusters are.
//! - A cluster that is removed stays as long as routes or listeners in force name it.
//!
//! Nobody waits for ever: what has waited for [`LIMIT`] joins as it is, and what lingers goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cache::Cache;
use super::kind::Kind;
use super::references;
use super::secrets;
use super::translate::Checked;
use crate::config::Configuration;
use crate::config::cluster::ClusterConfig;
use crate::config::listener::ListenerConfig;
use crate::config::route::RouteConfig;

/// How long one resource waits for another.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Puts configurations together, each from the one before.
#[derive(Debug, Default)]
pub struct Assembly {
    /// What the bootstrap has, in every configuration.
    statics: Configuration,
    current: Configuration,
    /// Since when a resource waits, or lingers.
    since: BTreeMap<(Kind, Arc<str>), Instant>,
}

/// A configuration, and what is not in it yet.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// As it can be served.
    pub configuration: Configuration,
    /// What waits for something else, by kind and name.
    pub waiting: BTreeSet<(Kind, Arc<str>)>,
    /// When to put together anew, although nothing has arrived.
    pub again_at: Option<Instant>,
}

impl Assembly {
    /// With the bootstrap's own listeners and clusters.
    pub fn new(statics: Configuration) -> Self {
        Self {
            current: statics.clone(),
            statics,
            since: BTreeMap::new(),
        }
    }

    /// The configuration that these resources make, after the one before.
    pub fn assemble(&mut self, cache: &Cache, now: Instant) -> Assembled {
        let mut pass = Pass {
            cache,
            before: &self.current,
            since: &mut self.since,
            noted: BTreeSet::new(),
            waiting: BTreeSet::new(),
            now,
            next: self.statics.clone(),
        };
        pass.clusters();
        pass.routes();
        pass.listeners();
        pass.lingering_clusters();
        pass.endpoints();
        pass.secrets();
        let Pass {
            noted,
            waiting,
            mut next,
            ..
        } = pass;
        secrets::fill_in(&mut next, Some(&self.current));
        self.since.retain(|key, _| noted.contains(key));
        self.current.clone_from(&next);
        Assembled {
            configuration: next,
            again_at: waiting
                .iter()
                .filter_map(|key| Some(*self.since.get(key)? + LIMIT))
                .min(),
            waiting,
        }
    }
}

/// Whether two configurations say the same. What is shared by both is not looked into.
pub fn is_same(one: &Configuration, other: &Configuration) -> bool {
    let Configuration {
        listeners,
        routes,
        clusters,
        endpoints,
        secrets,
    } = one;
    has_same(listeners, &other.listeners)
        && has_same(routes, &other.routes)
        && has_same(clusters, &other.clusters)
        && has_same(endpoints, &other.endpoints)
        && has_same(secrets, &other.secrets)
}

fn has_same<T: PartialEq>(
    one: &BTreeMap<Arc<str>, Arc<T>>,
    other: &BTreeMap<Arc<str>, Arc<T>>,
) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|((name, value), (other_name, other_value))| {
                name == other_name && (Arc::ptr_eq(value, other_value) || value == other_value)
            })
}

/// One putting-together.
struct Pass<'a> {
    cache: &'a Cache,
    before: &'a Configuration,
    since: &'a mut BTreeMap<(Kind, Arc<str>), Instant>,
    /// What waits or lingers this time, its time over or not.
    noted: BTreeSet<(Kind, Arc<str>)>,
    /// What waits or lingers on.
    waiting: BTreeSet<(Kind, Arc<str>)>,
    now: Instant,
    next: Configuration,
}

impl Pass<'_> {
    fn clusters(&mut self) {
        let (cache, before) = (self.cache, self.before);
        for (_, accepted) in cache.in_force(Kind::Cluster) {
            let Checked::Cluster(cluster) = &accepted.checked else {
                continue;
            };
            let name = &cluster.name;
            let joins = self.has_endpoints(cluster) || self.has_waited(Kind::Cluster, name);
            let joining = if joins {
                Some(cluster)
            } else {
                before.clusters.get(name)
            };
            if let Some(cluster) = joining {
                self.next
                    .clusters
                    .insert(Arc::clone(name), Arc::clone(cluster));
            }
        }
    }

    fn has_endpoints(&self, cluster: &ClusterConfig) -> bool {
        cluster.discovery_name().is_none_or(|name| {
            self.cache.accepted(Kind::Endpoints, name).is_some()
                || self.cache.is_absent(Kind::Endpoints, name)
        })
    }

    fn routes(&mut self) {
        let (cache, before) = (self.cache, self.before);
        for (_, accepted) in cache.in_force(Kind::Routes) {
            let Checked::Routes(routes) = &accepted.checked else {
                continue;
            };
            let name = &routes.name;
            let joins = self.has_clusters(&references::route_clusters(routes))
                || self.has_waited(Kind::Routes, name);
            let joining = if joins {
                Some(routes)
            } else {
                before.routes.get(name)
            };
            if let Some(routes) = joining {
                self.next
                    .routes
                    .insert(Arc::clone(name), Arc::clone(routes));
            }
        }
    }

    fn listeners(&mut self) {
        let (cache, before) = (self.cache, self.before);
        for (_, accepted) in cache.in_force(Kind::Listener) {
            let Checked::Listener(listener) = &accepted.checked else {
                continue;
            };
            let name = &listener.name;
            let joins = self.has_routes(listener) || self.has_waited(Kind::Listener, name);
            let joining = if joins {
                Some(listener)
            } else {
                before.listeners.get(name)
            };
            if let Some(listener) = joining {
                self.next
                    .listeners
                    .insert(Arc::clone(name), Arc::clone(listener));
            }
        }
    }

    fn has_routes(&self, listener: &ListenerConfig) -> bool {
        let has_routes = references::routes(listener).all(|name| {
            self.next.routes.contains_key(name) || self.cache.is_absent(Kind::Routes, name)
        });
        has_routes && self.has_clusters(&references::listener_clusters(listener))
    }

    fn has_clusters(&self, names: &[Arc<str>]) -> bool {
        names
            .iter()
            .all(|name| self.next.clusters.contains_key(name))
    }

    /// Clusters that are gone, and that somebody still names.
    fn lingering_clusters(&mut self) {
        let before = self.before;
        let by_routes = self
            .next
            .routes
            .values()
            .flat_map(|routes: &Arc<RouteConfig>| references::route_clusters(routes));
        let by_listeners = self
            .next
            .listeners
            .values()
            .flat_map(|listener| references::listener_clusters(listener));
        let named: BTreeSet<_> = by_routes.chain(by_listeners).collect();
        for name in named {
            let Some(cluster) = before.clusters.get(&name) else {
                continue;
            };
            if !self.next.clusters.contains_key(&name) && !self.has_waited(Kind::Cluster, &name) {
                self.next.clusters.insert(name, Arc::clone(cluster));
            }
        }
    }

    fn endpoints(&mut self) {
        let names: BTreeSet<_> = self
            .next
            .clusters
            .values()
            .filter_map(|cluster| cluster.discovery_name())
            .cloned()
            .collect();
        for name in names {
            let current = match self
                .cache
                .accepted(Kind::Endpoints, &name)
                .map(|one| &one.checked)
            {
                Some(Checked::Endpoints(endpoints)) => Some(endpoints),
                _ => self.before.endpoints.get(&name),
            };
            if let Some(endpoints) = current {
                self.next.endpoints.insert(name, Arc::clone(endpoints));
            }
        }
    }

    fn secrets(&mut self) {
        for (name, accepted) in self.cache.in_force(Kind::Secret) {
            if let Checked::Secret(secret) = &accepted.checked {
                self.next.secrets.insert(name.into(), Arc::clone(secret));
            }
        }
    }

    /// Whether something has waited long enough; else it waits on. Once over, its time stays over for as long as
    /// something is missing.
    fn has_waited(&mut self, kind: Kind, name: &Arc<str>) -> bool {
        let key = (kind, Arc::clone(name));
        let since = *self.since.entry(key.clone()).or_insert(self.now);
        self.noted.insert(key.clone());
        let is_over = self.now >= since + LIMIT;
        if !is_over {
            self.waiting.insert(key);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::testing::{
        cluster, eds_cluster, endpoints, listener, listener_with_secret, resource, routes, secret,
    };
    use super::*;
    use crate::config::tls::Shown;

    fn take<T: prost::Name>(cache: &mut Cache, kind: Kind, message: &T) {
        cache
            .take(kind, resource("1", message), UNIX_EPOCH)
            .expect("valid");
    }

    /// A listener, its routes, their cluster and its endpoints.
    fn whole() -> Cache {
        let mut cache = Cache::default();
        take(&mut cache, Kind::Cluster, &eds_cluster("a"));
        take(&mut cache, Kind::Endpoints, &endpoints("a", &[1]));
        take(&mut cache, Kind::Listener, &listener("web", "web"));
        take(&mut cache, Kind::Routes, &routes("web", "a"));
        cache
    }

    fn forwards_to(configuration: &Configuration) -> String {
        references::route_clusters(&configuration.routes["web"])[0].to_string()
    }

    #[test]
    fn what_is_whole_joins_at_once() {
        let assembled = Assembly::default().assemble(&whole(), Instant::now());

        assert!(assembled.waiting.is_empty());
        assert_eq!(assembled.again_at, None);
        let configuration = assembled.configuration;
        assert_eq!(configuration.listeners.len(), 1);
        assert_eq!(configuration.endpoints.len(), 1);
    }

    #[test]
    fn a_listener_waits_for_its_routes_and_these_for_their_cluster_and_it_for_its_endpoints() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let mut assembly = Assembly::default();
        take(&mut cache, Kind::Listener, &listener("web", "web"));
        take(&mut cache, Kind::Routes, &routes("web", "a"));
        take(&mut cache, Kind::Cluster, &eds_cluster("a"));

        let waiting = assembly.assemble(&cache, now);
        take(&mut cache, Kind::Endpoints, &endpoints("a", &[]));
        let joined = assembly.assemble(&cache, now);

        assert_eq!(waiting.waiting.len(), 3);
        assert!(waiting.configuration.listeners.is_empty());
        assert_eq!(waiting.again_at, Some(now + LIMIT));
        assert!(joined.waiting.is_empty());
        assert_eq!(joined.configuration.listeners.len(), 1);
    }

    #[test]
    fn resources_that_come_again_unchanged_are_the_same_configuration() {
        let now = Instant::now();
        let first = Assembly::default().assemble(&whole(), now).configuration;
        let again = Assembly::default().assemble(&whole(), now).configuration;
        let mut changed = again.clone();
        changed.endpoints.clear();

        assert!(is_same(&first, &again));
        assert!(!is_same(&first, &changed));
    }

    #[test]
    fn nothing_waits_for_ever() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let mut assembly = Assembly::default();
        take(&mut cache, Kind::Listener, &listener("web", "web"));
        assembly.assemble(&cache, now);

        let over = assembly.assemble(&cache, now + LIMIT);

        assert!(over.waiting.is_empty());
        assert_eq!(over.configuration.listeners.len(), 1);
    }

    #[test]
    fn routes_to_a_cluster_that_is_not_there_yet_leave_those_before_in_force() {
        let now = Instant::now();
        let mut cache = whole();
        let mut assembly = Assembly::default();
        assembly.assemble(&cache, now);

        take(&mut cache, Kind::Routes, &routes("web", "b"));
        let waiting = assembly.assemble(&cache, now);
        take(&mut cache, Kind::Cluster, &cluster("b"));
        let joined = assembly.assemble(&cache, now);

        assert_eq!(forwards_to(&waiting.configuration), "a");
        assert_eq!(
            waiting.waiting,
            BTreeSet::from([(Kind::Routes, "web".into())])
        );
        assert_eq!(forwards_to(&joined.configuration), "b");
    }

    #[test]
    fn a_cluster_that_is_removed_stays_while_routes_name_it() {
        let now = Instant::now();
        let mut cache = whole();
        let mut assembly = Assembly::default();
        assembly.assemble(&cache, now);

        cache.remove(Kind::Cluster, "a");
        cache.keep_wanted(Kind::Endpoints, &cache.wanted(Kind::Endpoints));
        let lingering = assembly.assemble(&cache, now);
        take(&mut cache, Kind::Cluster, &cluster("b"));
        take(&mut cache, Kind::Routes, &routes("web", "b"));
        let gone = assembly.assemble(&cache, now);

        assert!(lingering.configuration.clusters.contains_key("a"));
        assert!(lingering.configuration.endpoints.contains_key("a"));
        assert_eq!(
            gone.configuration
                .clusters
                .keys()
                .map(|name| &**name)
                .collect::<Vec<_>>(),
            ["b"]
        );
        assert!(gone.configuration.endpoints.is_empty());
    }

    #[test]
    fn a_cluster_that_changes_serves_on_until_the_new_endpoints_are_there() {
        let now = Instant::now();
        let mut cache = whole();
        let mut assembly = Assembly::default();
        let before = assembly.assemble(&cache, now).configuration;

        let mut moved = eds_cluster("a");
        moved.eds_cluster_config.as_mut().expect("eds").service_name = "elsewhere".into();
        take(&mut cache, Kind::Cluster, &moved);
        let waiting = assembly.assemble(&cache, now).configuration;

        assert!(Arc::ptr_eq(&before.clusters["a"], &waiting.clusters["a"]));
        assert!(waiting.endpoints.contains_key("a"));
    }

    #[test]
    fn a_secret_takes_the_place_of_its_name_and_changes_nothing_when_it_comes_again() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let mut assembly = Assembly::default();
        take(
            &mut cache,
            Kind::Listener,
            &listener_with_secret("web", "mine"),
        );
        take(&mut cache, Kind::Routes, &routes("web", "a"));
        take(&mut cache, Kind::Cluster, &cluster("a"));
        let shown = |configuration: &Configuration| {
            let chain = configuration.listeners["web"]
                .chains()
                .next()
                .expect("a chain");
            chain.tls.as_ref().expect("TLS").shows.clone()
        };

        let wanted = cache.wanted(Kind::Secret);
        let before = assembly.assemble(&cache, now).configuration;
        take(&mut cache, Kind::Secret, &secret("mine"));
        let after = assembly.assemble(&cache, now).configuration;
        let again = assembly.assemble(&cache, now).configuration;

        assert_eq!(wanted, BTreeSet::from(["mine".to_owned()]));
        assert_eq!(shown(&before), Shown::Secret("mine".into()));
        assert!(matches!(shown(&after), Shown::Certificates(_)));
        assert!(Arc::ptr_eq(
            &after.listeners["web"],
            &again.listeners["web"]
        ));
    }

    #[test]
    fn the_bootstraps_own_are_in_every_configuration() {
        let mut statics = Configuration::default();
        let own = ClusterConfig::new(
            "own",
            crate::config::cluster::Discovery::OriginalDestination,
        );
        statics.clusters.insert("own".into(), Arc::new(own));

        let assembled = Assembly::new(statics).assemble(&whole(), Instant::now());

        assert_eq!(assembled.configuration.clusters.len(), 2);
    }
}
