//! Requests kept in the proxy's own locality, as far as its share of the endpoints allows (Envoy's zone-aware routing).
//!
//! Where a bootstrap names the cluster of proxies like this one, its endpoints say how many callers there are in each
//! locality. A picture works out for each cluster what can stay; a choice reads it.

pub mod vicinity;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rand::Rng;

use self::vicinity::{Population, Vicinity};
use super::arrangement::plan::Plan;
use super::balancer::List;
use super::endpoint::Standing;
use super::members::Member;
use super::stats::ClusterStats;
use crate::config::balancing::{Basis, ZoneRouting};
use crate::config::endpoints::Locality;
use crate::config::percent::Percent;
use crate::random;

/// Shares are whole numbers of this, as in Envoy.
const WHOLE: u64 = 10_000;

/// How often requests have stayed, and why not; Envoy's `lb_zone_*` and `lb_local_cluster_not_ok`.
#[derive(Debug, Default)]
pub struct ZoneStats {
    /// Worked out anew.
    pub recalculated: AtomicU64,
    /// In a cluster of which all requests stay.
    pub all_directly: AtomicU64,
    /// Stayed, in a cluster of which some do.
    pub sampled: AtomicU64,
    /// Went elsewhere.
    pub cross_zone: AtomicU64,
    /// There was no locality with room for them.
    pub no_capacity: AtomicU64,
    /// The cluster has too few endpoints.
    pub too_small: AtomicU64,
    /// The proxies like this one are not known well enough.
    pub not_ok: AtomicU64,
}

/// What is known of the proxy's surroundings when a cluster is arranged.
#[derive(Debug, Clone, Copy)]
pub struct Near<'a> {
    /// Where the proxy is, and those like it.
    pub vicinity: &'a Vicinity,
    /// What is counted.
    pub stats: &'a Arc<ClusterStats>,
}

/// Endpoints of a priority by locality, of which the proxy's own is preferred.
#[derive(Debug)]
pub(super) struct Zoned {
    routing: Routing,
    /// By locality; the proxy's own is the first, where it has endpoints.
    lists: Vec<List>,
    all: List,
    enabled: Percent,
    /// Too many of the proxies like this one are unhealthy.
    panics: bool,
    fails_on_panic: bool,
    stats: Arc<ClusterStats>,
}

/// What can stay.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Routing {
    /// Everything.
    Direct,
    /// A share.
    Residual {
        /// Of [`WHOLE`].
        stays: u64,
        /// What localities have room for beyond their own callers: sums up to and with each.
        room: Vec<u64>,
    },
}

/// Why everybody is treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alike {
    /// It makes no difference.
    Pointless,
    /// There are too few endpoints.
    TooSmall,
    /// The proxy is not among those like it.
    NotOk,
}

impl Zoned {
    /// `None` where all endpoints are alike.
    pub(super) fn new(members: &[Member], plan: &mut Plan<'_>) -> Option<Self> {
        let Near { vicinity, stats } = plan.near?;
        let config = plan.config.zones;
        let is_of_first_priority = members.first().is_some_and(|member| member.priority == 0);
        if !is_of_first_priority || !plan.config.balancer.is_foreseeable() {
            return None;
        }
        ClusterStats::count(&stats.zones.recalculated);
        let zones = zones(members, plan, &vicinity.own);
        let there: Vec<_> = zones.iter().map(|zone| zone.population.clone()).collect();
        let here = vicinity.populations();
        let routing = match routing(config, &vicinity.own, &here, &there) {
            Ok(routing) => routing,
            Err(alike) => {
                match alike {
                    Alike::Pointless => {}
                    Alike::TooSmall => ClusterStats::count(&stats.zones.too_small),
                    Alike::NotOk => ClusterStats::count(&stats.zones.not_ok),
                }
                return None;
            }
        };
        let lists = (0..)
            .zip(&zones)
            .map(|(index, zone)| plan.list(&zone.healthy, |_| 1.0, (0, false, Some(index))))
            .collect();
        let healthy: Vec<_> = zones.iter().flat_map(|zone| zone.healthy.clone()).collect();
        let threshold = f64::from(plan.config.panic_threshold.millionths()) / 10_000.0;
        Some(Zoned {
            routing,
            lists,
            all: plan.list(&healthy, |_| 1.0, (0, false, None)),
            enabled: config.enabled,
            panics: vicinity::panics(&here, threshold),
            fails_on_panic: plan.config.fails_on_panic,
            stats: Arc::clone(stats),
        })
    }

    /// Where a request goes; `None`: it is refused.
    pub(super) fn list(&self, random: &mut impl Rng) -> Option<&List> {
        if !self.enabled.covers(random.next_u32()) {
            return Some(&self.all);
        }
        let stats = &self.stats.zones;
        if self.panics {
            ClusterStats::count(&stats.not_ok);
            return (!self.fails_on_panic).then_some(&self.all);
        }
        let zone = self.routing.zone(self.lists.len(), stats, random);
        let list = self.lists.get(zone);
        let list = list.filter(|list| !list.endpoints().is_empty());
        Some(list.unwrap_or(&self.all))
    }
}

impl Routing {
    /// The number of a locality.
    fn zone(&self, count: usize, stats: &ZoneStats, random: &mut impl Rng) -> usize {
        let Routing::Residual { stays, room } = self else {
            ClusterStats::count(&stats.all_directly);
            return 0;
        };
        if random::below(random, WHOLE) < *stays {
            ClusterStats::count(&stats.sampled);
            return 0;
        }
        ClusterStats::count(&stats.cross_zone);
        match room.last() {
            Some(total) if *total > 0 => {
                let point = random::below(random, *total);
                room.partition_point(|sum| *sum <= point)
            }
            // By rounding only.
            _ => {
                ClusterStats::count(&stats.no_capacity);
                usize::try_from(random::below(random, count as u64)).unwrap_or(0)
            }
        }
    }
}

/// A locality of a priority.
struct Zone<'a> {
    population: Population,
    healthy: Vec<&'a Member>,
}

/// The proxy's own first, then in order of their names.
fn zones<'a>(members: &'a [Member], plan: &Plan<'_>, own: &Locality) -> Vec<Zone<'a>> {
    let mut zones: Vec<Zone<'a>> = Vec::new();
    for member in members {
        let locality = &plan.places[member.place].locality;
        let is_healthy = member.endpoint.standing(plan.now) == Standing::Healthy;
        let found = zones
            .iter()
            .position(|zone| zone.population.locality == *locality);
        let index = found.unwrap_or_else(|| {
            zones.push(Zone {
                population: Population::of(locality),
                healthy: vec![],
            });
            zones.len() - 1
        });
        let zone = &mut zones[index];
        zone.population.add(&member.endpoint, is_healthy);
        if is_healthy {
            zone.healthy.push(member);
        }
    }
    let rank = |locality: &Locality| {
        let names = [&locality.region, &locality.zone, &locality.sub_zone];
        (locality != own, names.map(Arc::clone))
    };
    zones.sort_by_cached_key(|zone| rank(&zone.population.locality));
    zones
}

/// Envoy's rules. `there` begins with the proxy's own locality, where that has endpoints.
fn routing(
    config: ZoneRouting,
    own: &Locality,
    here: &[Population],
    there: &[Population],
) -> Result<Routing, Alike> {
    if there.len() < 2 || (config.forced_from.is_none() && here.len() < 2) {
        return Err(Alike::Pointless);
    }
    let is_own = |population: &&Population| *population.locality == *own;
    if *own == Locality::default() || !here.iter().any(|each| is_own(&each)) {
        return Err(Alike::NotOk);
    }
    let healthy: u64 = there.iter().map(|each| each.healthy).sum();
    if healthy == 0 || healthy < config.min_cluster_size {
        return Err(Alike::TooSmall);
    }
    let shares = shares(config.basis, here, there);
    let begins_here = there.first().filter(is_own);
    if let (Some(first), Some((callers, endpoints))) = (begins_here, shares.first()) {
        let is_forced = config.forced_from.is_some_and(|from| first.healthy >= from);
        if (*endpoints > 0 && endpoints >= callers) || is_forced {
            return Ok(Routing::Direct);
        }
    }
    let stays = match (begins_here, shares.first()) {
        (Some(_), Some((callers, endpoints))) if *callers > 0 => endpoints * WHOLE / callers,
        _ => 0,
    };
    let mut sum = 0;
    let room = (0..).zip(&shares).map(|(index, (callers, endpoints))| {
        if index > 0 || begins_here.is_none() {
            sum += endpoints.saturating_sub(*callers);
        }
        sum
    });
    Ok(Routing::Residual {
        stays,
        room: room.collect(),
    })
}

/// Of each locality: its share of the callers, and of the endpoints, in parts of [`WHOLE`].
fn shares(basis: Basis, here: &[Population], there: &[Population]) -> Vec<(u64, u64)> {
    let counted = |population: &Population| match basis {
        Basis::Count => population.healthy,
        Basis::Weight => population.healthy_weight,
    };
    let share = |of: u64, total: u64| (WHOLE * of).checked_div(total).unwrap_or(0);
    let callers: u64 = here.iter().map(counted).sum();
    let endpoints: u64 = there.iter().map(counted).sum();
    let share_of = |zone: &Population| {
        if zone.healthy == 0 {
            return (0, 0);
        }
        let same = here.iter().find(|each| each.locality == zone.locality);
        (
            share(same.map_or(0, counted), callers),
            share(counted(zone), endpoints),
        )
    };
    there.iter().map(share_of).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn locality(zone: &str) -> Arc<Locality> {
        Arc::new(Locality {
            zone: zone.into(),
            ..Locality::default()
        })
    }

    /// Localities `a`, `b` and so on, with so many healthy endpoints each.
    fn populations(healthy: &[u64]) -> Vec<Population> {
        (b'a'..)
            .zip(healthy)
            .map(|(name, count)| Population {
                locality: locality(&char::from(name).to_string()),
                all: *count,
                healthy: *count,
                healthy_weight: *count,
            })
            .collect()
    }

    fn small() -> ZoneRouting {
        ZoneRouting {
            min_cluster_size: 1,
            ..ZoneRouting::default()
        }
    }

    fn routed(config: ZoneRouting, here: &[u64], there: &[u64]) -> Result<Routing, Alike> {
        let (here, there) = (populations(here), populations(there));
        routing(config, &locality("a"), &here, &there)
    }

    #[test]
    fn everything_stays_where_a_locality_has_as_large_a_share_of_endpoints_as_of_callers() {
        for (here, there) in [([1, 1], [1, 1]), ([1, 3], [1, 1]), ([2, 2], [3, 1])] {
            assert_eq!(routed(small(), &here, &there), Ok(Routing::Direct));
        }
    }

    #[test]
    fn what_cannot_stay_goes_where_there_is_room() {
        // The figures of Envoy's source: callers 40, 40, 20 percent, endpoints 25, 50, 25.
        let routing = routed(small(), &[2, 2, 1], &[1, 2, 1]);

        let expected = Routing::Residual {
            stays: 6250,
            room: vec![0, 1000, 1500],
        };
        assert_eq!(routing, Ok(expected));
    }

    #[test]
    fn a_locality_without_endpoints_keeps_nothing() {
        let (here, mut there) = (populations(&[1, 1, 1]), populations(&[0, 3, 1]));
        there.remove(0);
        let routing = routing(small(), &locality("a"), &here, &there);

        let expected = Routing::Residual {
            stays: 0,
            room: vec![4167, 4167],
        };
        assert_eq!(routing, Ok(expected));
    }

    #[test]
    fn endpoints_are_alike_where_it_makes_no_difference_or_too_little_is_known() {
        let usual = ZoneRouting::default();
        assert_eq!(routed(small(), &[1, 1], &[4]), Err(Alike::Pointless));
        assert_eq!(routed(small(), &[1], &[1, 1]), Err(Alike::Pointless));
        assert_eq!(routed(usual, &[1, 1], &[2, 2]), Err(Alike::TooSmall));
        let elsewhere = routing(
            small(),
            &locality("z"),
            &populations(&[1, 1]),
            &populations(&[1, 1]),
        );
        assert_eq!(elsewhere, Err(Alike::NotOk));
    }

    #[test]
    fn a_locality_with_enough_endpoints_keeps_everything_where_that_is_forced() {
        let forced = ZoneRouting {
            forced_from: Some(2),
            ..small()
        };

        assert_eq!(routed(forced, &[9, 1], &[2, 8]), Ok(Routing::Direct));
        let too_few = routed(forced, &[9, 1], &[1, 8]);
        assert!(matches!(too_few, Ok(Routing::Residual { .. })));
    }

    #[test]
    fn weights_may_count_instead_of_endpoints() {
        let by_weight = ZoneRouting {
            basis: Basis::Weight,
            ..small()
        };
        let (here, mut there) = (populations(&[1, 1]), populations(&[1, 1]));
        there[0].healthy_weight = 1;
        there[1].healthy_weight = 3;

        let routing = routing(by_weight, &locality("a"), &here, &there);

        let expected = Routing::Residual {
            stays: 5000,
            room: vec![0, 2500],
        };
        assert_eq!(routing, Ok(expected));
    }

    #[test]
    fn requests_follow_the_shares() {
        let routing = Routing::Residual {
            stays: 6250,
            room: vec![0, 1000, 1500],
        };
        let mut random = SmallRng::seed_from_u64(1);
        let stats = ZoneStats::default();
        let mut counts = [0_u32; 3];
        for _ in 0..24_000 {
            counts[routing.zone(3, &stats, &mut random)] += 1;
        }

        // Five deviations are at most 375.
        for (count, expected) in counts.into_iter().zip([15_000, 6000, 3000]) {
            assert!(count.abs_diff(expected) < 400, "{counts:?}");
        }
    }
}
