//! Where the proxy is, and how many like it there are in each locality.
//!
//! The cluster that the bootstrap names tells when its endpoints or their health change; the others look at the
//! version when they are tended.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::cluster::endpoint::{Endpoint, Standing};
use crate::cluster::members::Members;
use crate::config::endpoints::Locality;

/// The proxy's surroundings.
#[derive(Debug)]
pub struct Vicinity {
    /// Where the proxy is.
    pub own: Locality,
    /// The cluster whose endpoints are proxies like this one (Envoy's `local_cluster_name`).
    pub cluster: Arc<str>,
    known: ArcSwap<Known>,
}

#[derive(Debug, Default)]
struct Known {
    version: u64,
    populations: Arc<[Population]>,
}

/// How many endpoints a locality has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Population {
    /// The locality.
    pub locality: Arc<Locality>,
    /// All of them.
    pub all: u64,
    /// Those that are healthy.
    pub healthy: u64,
    /// The weights of those.
    pub healthy_weight: u64,
}

impl Population {
    /// Of a locality, without endpoints so far.
    pub fn of(locality: &Arc<Locality>) -> Self {
        Population {
            locality: Arc::clone(locality),
            all: 0,
            healthy: 0,
            healthy_weight: 0,
        }
    }

    /// One more.
    pub fn add(&mut self, endpoint: &Endpoint, is_healthy: bool) {
        self.all += 1;
        if is_healthy {
            self.healthy += 1;
            self.healthy_weight += u64::from(endpoint.weight);
        }
    }
}

impl Vicinity {
    /// Of a proxy, before anything is known of those like it.
    pub fn new(own: Locality, cluster: Arc<str>) -> Self {
        Vicinity {
            own,
            cluster,
            known: ArcSwap::default(),
        }
    }

    /// Counts up with each change.
    pub fn version(&self) -> u64 {
        self.known.load().version
    }

    /// The localities where proxies like this one are.
    pub fn populations(&self) -> Arc<[Population]> {
        Arc::clone(&self.known.load().populations)
    }

    /// What the cluster is now; says whether that is something new. Called by one at a time.
    pub(in crate::cluster) fn learn(&self, members: &Members, now: std::time::Instant) -> bool {
        let mut populations: Vec<Population> = Vec::new();
        for member in members.all().iter().filter(|member| member.priority == 0) {
            let locality = &members.places()[member.place].locality;
            let mut known = populations.iter_mut();
            let is_healthy = member.endpoint.standing(now) == Standing::Healthy;
            match known.find(|each| each.locality == *locality) {
                Some(population) => population.add(&member.endpoint, is_healthy),
                None => {
                    let mut population = Population::of(locality);
                    population.add(&member.endpoint, is_healthy);
                    populations.push(population);
                }
            }
        }
        let before = self.known.load();
        if *before.populations == *populations {
            return false;
        }
        self.known.store(Arc::new(Known {
            version: before.version + 1,
            populations: populations.into(),
        }));
        true
    }
}

/// Whether too few are healthy, by a threshold in percent.
pub(super) fn panics(populations: &[Population], threshold: f64) -> bool {
    let all: u64 = populations.iter().map(|each| each.all).sum();
    let healthy: u64 = populations.iter().map(|each| each.healthy).sum();
    #[allow(clippy::cast_precision_loss, reason = "counts of endpoints")]
    let share = match all {
        0 => 0.0,
        all => 100.0 * healthy as f64 / all as f64,
    };
    share < threshold
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use tokio::sync::Notify;

    use super::*;
    use crate::cluster::{Cluster, Pick};
    use crate::config::balancing::ZoneRouting;
    use crate::config::cluster::{ClusterConfig, Discovery};
    use crate::config::endpoints::{EndpointConfig, EndpointsConfig, LocalityConfig};

    fn locality(zone: &str) -> Locality {
        Locality {
            zone: zone.into(),
            ..Locality::default()
        }
    }

    /// With an endpoint in each of the localities `a` and `b`.
    fn cluster(name: &str, ports: [u16; 2], vicinity: &Arc<Vicinity>) -> Cluster {
        let localities = ["a", "b"].into_iter().zip(ports);
        let localities = localities.map(|(zone, port)| LocalityConfig {
            locality: locality(zone),
            priority: 0,
            weight: 0,
            endpoints: vec![EndpointConfig::at(([127, 0, 0, 1], port).into())],
        });
        let endpoints = Arc::new(EndpointsConfig {
            name: name.into(),
            policy: Default::default(),
            localities: localities.collect(),
        });
        let config = ClusterConfig {
            zones: ZoneRouting {
                min_cluster_size: 1,
                ..ZoneRouting::default()
            },
            ..ClusterConfig::new(name, Discovery::Static(Arc::clone(&endpoints)))
        };
        let vicinity = Some(Arc::clone(vicinity));
        Cluster::near(Arc::new(config), Some(endpoints), None, vicinity)
    }

    fn picked(cluster: &Cluster) -> BTreeSet<u16> {
        let pick = || cluster.pick(Pick::at(Instant::now())).expect("one");
        (0..4).map(|_| pick().address.port()).collect()
    }

    #[test]
    fn a_cluster_learns_of_proxies_when_it_is_tended() {
        let vicinity = Arc::new(Vicinity::new(locality("a"), "proxies".into()));
        let web = cluster("web", [1, 2], &vicinity);
        assert_eq!(picked(&web), BTreeSet::from([1, 2]));

        let _proxies = cluster("proxies", [8, 9], &vicinity);
        web.tend(&Arc::new(Notify::new()), Instant::now());

        assert_eq!(picked(&web), BTreeSet::from([1]));
        let stayed = &web.stats.zones.all_directly;
        assert_eq!(stayed.load(Ordering::Relaxed), 4);
    }
}
