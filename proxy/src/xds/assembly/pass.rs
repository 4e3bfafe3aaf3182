//! One putting-together: which resources join, which wait, and which linger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::LIMIT;
use crate::config::Configuration;
use crate::config::cluster::ClusterConfig;
use crate::config::listener::ListenerConfig;
use crate::config::route::RouteConfig;
use crate::xds::cache::Cache;
use crate::xds::kind::Kind;
use crate::xds::references;
use crate::xds::translate::Checked;

/// Since when a resource waits, or lingers.
pub(super) type Since = BTreeMap<(Kind, Arc<str>), Instant>;

/// How long named resources are waited for; none: as long as it takes.
type Limits = BTreeMap<(Kind, Arc<str>), Option<Duration>>;

/// One putting-together.
pub(super) struct Pass<'a> {
    cache: &'a Cache,
    before: &'a Configuration,
    since: &'a mut Since,
    limits: Limits,
    now: Instant,
    /// What waits or lingers this time, its time over or not.
    pub(super) noted: BTreeSet<(Kind, Arc<str>)>,
    /// What waits or lingers on.
    pub(super) waiting: BTreeSet<(Kind, Arc<str>)>,
    /// When the first of them has waited long enough.
    pub(super) again_at: Option<Instant>,
    /// What is made.
    pub(super) next: Configuration,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        cache: &'a Cache,
        before: &'a Configuration,
        since: &'a mut Since,
        now: Instant,
    ) -> Self {
        let needs = cache.needs();
        let limits = needs.map(|needed| ((needed.kind, Arc::clone(&needed.name)), needed.limit));
        Pass {
            limits: limits.collect(),
            cache,
            before,
            since,
            now,
            noted: BTreeSet::new(),
            waiting: BTreeSet::new(),
            again_at: None,
            next: Configuration::default(),
        }
    }

    /// What is pointed at before what points at it.
    pub(super) fn run(&mut self) {
        self.clusters();
        self.routes();
        self.listeners();
        self.lingering_clusters();
        self.endpoints();
        self.secrets();
    }

    fn clusters(&mut self) {
        let (cache, before) = (self.cache, self.before);
        for (_, checked, _) in cache.all(Kind::Cluster) {
            let Checked::Cluster(cluster) = checked else {
                continue;
            };
            let name = &cluster.name;
            let limit = self.limit_of_endpoints(cluster);
            let joins = self.has_endpoints(cluster) || self.has_waited(Kind::Cluster, name, limit);
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

    fn limit_of_endpoints(&self, cluster: &ClusterConfig) -> Option<Duration> {
        let name = cluster.discovery_name()?;
        self.limit(Kind::Endpoints, name)
    }

    fn limit(&self, kind: Kind, name: &Arc<str>) -> Option<Duration> {
        let limit = self.limits.get(&(kind, Arc::clone(name)));
        limit.copied().unwrap_or(Some(LIMIT))
    }

    fn has_endpoints(&self, cluster: &ClusterConfig) -> bool {
        cluster.discovery_name().is_none_or(|name| {
            self.cache.accepted(Kind::Endpoints, name).is_some()
                || self.cache.is_absent(Kind::Endpoints, name)
        })
    }

    fn routes(&mut self) {
        let (cache, before) = (self.cache, self.before);
        for (_, checked, _) in cache.all(Kind::Routes) {
            let Checked::Routes(routes) = checked else {
                continue;
            };
            let name = &routes.name;
            let joins = self.has_clusters(&references::route_clusters(routes))
                || self.has_waited(Kind::Routes, name, Some(LIMIT));
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
        for (_, checked, is_static) in cache.all(Kind::Listener) {
            let Checked::Listener(listener) = checked else {
                continue;
            };
            let name = &listener.name;
            let joins = match self.limit_of_routes(listener) {
                Some(limit) => self.has_waited(Kind::Listener, name, limit),
                None if is_static => true,
                None => {
                    self.has_clusters(&references::listener_clusters(listener))
                        || self.has_waited(Kind::Listener, name, Some(LIMIT))
                }
            };
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

    /// How long routes are waited for that are not there yet; none: all are there.
    fn limit_of_routes(&self, listener: &ListenerConfig) -> Option<Option<Duration>> {
        let missing = references::routes(listener).filter(|name| {
            !self.next.routes.contains_key(*name) && !self.cache.is_absent(Kind::Routes, name)
        });
        let limits = missing.map(|name| self.limit(Kind::Routes, name));
        // No limit is the longest.
        limits.max_by_key(|limit| limit.unwrap_or(Duration::MAX))
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
            if !self.next.clusters.contains_key(&name)
                && !self.has_waited(Kind::Cluster, &name, Some(LIMIT))
            {
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
        for (name, checked, _) in self.cache.all(Kind::Secret) {
            if let Checked::Secret(secret) = checked {
                self.next.secrets.insert(name.into(), Arc::clone(secret));
            }
        }
    }

    /// Whether something has waited long enough; else it waits on. Once over, its time stays over for as long as
    /// something is missing.
    fn has_waited(&mut self, kind: Kind, name: &Arc<str>, limit: Option<Duration>) -> bool {
        let key = (kind, Arc::clone(name));
        let since = *self.since.entry(key.clone()).or_insert(self.now);
        self.noted.insert(key.clone());
        let until = limit.map(|limit| since + limit);
        let is_over = until.is_some_and(|until| self.now >= until);
        if !is_over {
            self.waiting.insert(key);
            self.again_at = self.again_at.into_iter().chain(until).min();
        }
        is_over
    }
}
