//! Endpoints arranged to be chosen from: by priority, by health, by locality.
//!
//! Made anew when endpoints or their health change, off the path of requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use rand::Rng;

use super::balancer::{Draw, List};
use super::endpoint::{Endpoint, Standing};
use super::loads::{Loads, Part, Usable};
use super::members::{Member, Place};
use super::outlier::millis;
use super::priorities::Priorities;
use super::turns::Turns;
use super::zones::{Near, Zoned};
use crate::config::balancing::{Balancer, Localities, SlowStart};
use crate::config::cluster::ClusterConfig;
use crate::config::endpoints::HealthPolicy;
use crate::random;

/// Endpoints, ready to be chosen from.
#[derive(Debug, Default)]
pub struct Arrangement {
    loads: Loads,
    levels: Vec<Level>,
    is_empty: bool,
    panics: bool,
}

/// Endpoints of one priority.
#[derive(Debug, Default)]
struct Level {
    priority: u32,
    /// In panic, all.
    healthy: Group,
    degraded: Group,
}

/// Endpoints that are alike, by locality where localities have shares.
#[derive(Debug, Default)]
enum Group {
    #[default]
    Empty,
    Pooled(List),
    Weighted(Turns, Vec<List>),
    Zoned(Box<Zoned>),
}

/// What an arrangement is made of.
pub struct Plan<'a> {
    /// The cluster's configuration.
    pub config: &'a ClusterConfig,
    /// Localities, by the numbers that members have.
    pub places: &'a [Place],
    /// How health is turned into shares.
    pub policy: &'a HealthPolicy,
    /// Whether localities keep their weights.
    pub localities: Localities,
    /// By how much a locality's weight is reduced, by its number.
    pub scales: Option<&'a [f64]>,
    /// Whose turn it is, kept from one arrangement to the next.
    pub turns: &'a mut KeptTurns,
    /// Among the turns, whose arrangement this is.
    pub scope: Arc<str>,
    /// Now.
    pub now: Instant,
    /// The proxy's surroundings, where they are known.
    pub near: Option<Near<'a>>,
}

/// Where a turn is taken.
type TurnKey = (Arc<str>, u32, bool, Option<usize>);

/// Whose turn it is, in each list.
#[derive(Debug, Default)]
pub struct KeptTurns {
    before: HashMap<TurnKey, Arc<AtomicU64>>,
    now: HashMap<TurnKey, Arc<AtomicU64>>,
}

impl KeptTurns {
    /// What is not asked for between two calls is forgotten with the second.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    fn of(&mut self, key: TurnKey) -> Arc<AtomicU64> {
        let before = &self.before;
        let turn = self.now.entry(key).or_insert_with_key(|key| {
            // Where none is known, a list begins anywhere: not all proxies with the same endpoint.
            let begin = || Arc::new(AtomicU64::new(random::draw().into()));
            before.get(key).cloned().unwrap_or_else(begin)
        });
        Arc::clone(turn)
    }
}

impl Arrangement {
    /// Members are in order of priority.
    pub fn new(members: &[Member], plan: &mut Plan<'_>) -> Self {
        let levels: Vec<&[Member]> = members
            .chunk_by(|one, other| one.priority == other.priority)
            .collect();
        let usable: Vec<_> = levels.iter().map(|level| usable(level, plan)).collect();
        let threshold = f64::from(plan.config.panic_threshold.millionths()) / 10_000.0;
        let loads = Loads::new(&usable, plan.policy.overprovisioning, threshold);
        let levels = levels
            .iter()
            .zip(&loads.panic)
            .map(|(level, panics)| Level::new(level, *panics, plan))
            .collect();
        Arrangement {
            panics: loads.panic.contains(&true) || (members.is_empty() && threshold > 0.0),
            loads,
            levels,
            is_empty: members.is_empty(),
        }
    }

    /// One of them.
    pub fn choose(&self, draw: &Draw<'_>, random: &mut impl Rng) -> Option<&Arc<Endpoint>> {
        // The same request goes to the same priority, too.
        let point = match draw.hash {
            Some(hash) => hash % 100,
            None => random::below(random, 100),
        };
        let point = u32::try_from(point).unwrap_or(0);
        let (index, part) = match draw.left.is_empty() {
            true => self.loads.part(point)?,
            false => {
                let is_left_out = |index| self.is_among(index, draw.left);
                self.loads.part_without(point, is_left_out)?
            }
        };
        let level = self.levels.get(index)?;
        let group = match (part, &level.degraded) {
            (Part::Healthy, _) | (Part::Degraded, Group::Empty) => &level.healthy,
            (Part::Degraded, degraded) => degraded,
        };
        match group {
            Group::Empty => None,
            Group::Pooled(list) => list.choose(draw, random),
            Group::Weighted(turns, lists) => lists[turns.next()].choose(draw, random),
            Group::Zoned(zoned) => zoned.list(random)?.choose(draw, random),
        }
    }

    /// Whether any endpoint can be used of other priorities than these.
    pub fn has_others(&self, than: Priorities) -> bool {
        self.loads.has_others(|index| self.is_among(index, than))
    }

    fn is_among(&self, index: usize, priorities: Priorities) -> bool {
        let level = self.levels.get(index);
        level.is_some_and(|level| priorities.has(level.priority))
    }

    /// Whether there are no endpoints at all.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether a priority has too few usable endpoints to choose among. To have none at all is too few.
    pub fn panics(&self) -> bool {
        self.panics
    }
}

impl Level {
    fn new(members: &[Member], panics: bool, plan: &mut Plan<'_>) -> Self {
        let priority = members.first().map_or(0, |member| member.priority);
        if panics {
            if plan.config.fails_on_panic {
                return Level {
                    priority,
                    ..Level::default()
                };
            }
            let is_left = |standing| standing != Standing::Draining;
            return Level {
                priority,
                healthy: Group::new(members, is_left, Localities::Pooled, false, plan),
                degraded: Group::Empty,
            };
        }
        let localities = plan.localities;
        let is_healthy = |standing| standing == Standing::Healthy;
        let is_degraded = |standing| standing == Standing::Degraded;
        let healthy = match localities {
            Localities::Pooled => {
                Zoned::new(members, plan).map(|zoned| Group::Zoned(Box::new(zoned)))
            }
            Localities::Weighted => None,
        }
        .unwrap_or_else(|| Group::new(members, is_healthy, localities, false, plan));
        // A hash is always looked up among the healthy ones, where there are any: Envoy's rings hold no others.
        let is_looked_up = plan.config.balancer.is_hashing() && !matches!(healthy, Group::Empty);
        let degraded = match is_looked_up {
            true => Group::Empty,
            false => Group::new(members, is_degraded, localities, true, plan),
        };
        Level {
            priority,
            healthy,
            degraded,
        }
    }
}

impl Group {
    fn new(
        members: &[Member],
        is_in: impl Fn(Standing) -> bool,
        localities: Localities,
        is_degraded: bool,
        plan: &mut Plan<'_>,
    ) -> Self {
        let chosen: Vec<&Member> = members
            .iter()
            .filter(|member| is_in(member.endpoint.standing(plan.now)))
            .collect();
        let Some(first) = chosen.first() else {
            return Group::Empty;
        };
        let priority = first.priority;
        let places = match localities {
            Localities::Pooled => vec![],
            Localities::Weighted => by_place(&chosen, members, plan),
        };
        if places.is_empty() {
            // As in Envoy: a ring of localities without weights is empty.
            if localities == Localities::Weighted && plan.config.balancer.is_hashing() {
                return Group::Empty;
            }
            return Group::Pooled(plan.list(&chosen, |_| 1.0, (priority, is_degraded, None)));
        }
        if plan.config.balancer.is_hashing() {
            // One ring for all: an endpoint's share is that of its locality.
            let scale = |member: &Member| {
                places
                    .iter()
                    .find(|place| place.number == member.place)
                    .map_or(0.0, |place| place.weight / place.sum)
            };
            return Group::Pooled(plan.list(&chosen, scale, (priority, is_degraded, None)));
        }
        let weights: Vec<f64> = places.iter().map(|place| place.weight).collect();
        let turn = plan.turn((priority, is_degraded, Some(usize::MAX)));
        let lists = places
            .iter()
            .map(|place| {
                let key = (priority, is_degraded, Some(place.number));
                plan.list(&place.members, |_| 1.0, key)
            })
            .collect();
        Group::Weighted(Turns::new(&weights, turn), lists)
    }
}

/// The endpoints of a locality that are in a group.
struct InPlace<'a> {
    number: usize,
    members: Vec<&'a Member>,
    /// Effective: less where few of its endpoints are usable.
    weight: f64,
    /// Of its endpoints' weights.
    sum: f64,
}

/// Empty where no locality has a weight.
fn by_place<'a>(chosen: &[&'a Member], all: &[Member], plan: &Plan<'_>) -> Vec<InPlace<'a>> {
    let mut places: Vec<InPlace<'a>> = Vec::new();
    for member in chosen {
        let own = f64::from(member.endpoint.weight);
        match places.iter_mut().find(|place| place.number == member.place) {
            Some(place) => {
                place.members.push(member);
                place.sum += own;
            }
            None => places.push(InPlace {
                number: member.place,
                members: vec![member],
                weight: 0.0,
                sum: own,
            }),
        }
    }
    for place in &mut places {
        let is_there = |member: &&Member| {
            let is_left = member.endpoint.standing(plan.now) != Standing::Draining;
            member.place == place.number && is_left
        };
        let count: u32 = all.iter().filter(is_there).map(|_| 1).sum();
        let eligible: u32 = place.members.iter().map(|_| 1).sum();
        let factor = f64::from(plan.policy.overprovisioning) / 100.0;
        let availability = (factor * f64::from(eligible) / f64::from(count.max(1))).min(1.0);
        let scale = plan.scales.map_or(1.0, |scales| scales[place.number]);
        place.weight = f64::from(plan.places[place.number].weight) * availability * scale;
    }
    places.retain(|place| place.weight > 0.0);
    places
}

impl Plan<'_> {
    pub(super) fn list(
        &mut self,
        members: &[&Member],
        scale: impl Fn(&Member) -> f64,
        (priority, is_degraded, place): (u32, bool, Option<usize>),
    ) -> List {
        let weighted = members
            .iter()
            .map(|member| {
                let endpoint = &member.endpoint;
                let weight = f64::from(endpoint.weight) * self.warmth(endpoint) * scale(member);
                (Arc::clone(endpoint), weight)
            })
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        let turn = self.turn((priority, is_degraded, place));
        List::new(weighted, self.config.balancer, self.config.hashing, turn)
    }

    fn turn(
        &mut self,
        (priority, is_degraded, place): (u32, bool, Option<usize>),
    ) -> Arc<AtomicU64> {
        self.turns
            .of((Arc::clone(&self.scope), priority, is_degraded, place))
    }

    fn warmth(&self, endpoint: &Endpoint) -> f64 {
        match (&self.config.slow_start, self.config.balancer) {
            (Some(slow_start), Balancer::RoundRobin | Balancer::LeastRequest { .. }) => {
                warmth(slow_start, endpoint.state.warm_since(), millis(self.now))
            }
            _ => 1.0,
        }
    }
}

/// The share of its weight that an endpoint gets: Envoy's formula.
fn warmth(config: &SlowStart, since: u64, now: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a window")]
    let elapsed = now.saturating_sub(since).max(1) as f64 / 1000.0;
    let window = config.window.as_secs_f64();
    if elapsed >= window {
        return 1.0;
    }
    let factor = (elapsed / window).powf(1.0 / config.aggression);
    factor.clamp(config.min_weight.max(f64::MIN_POSITIVE), 1.0)
}

/// What of a priority is usable, counted as the policy says. What drains is no more than gone: it is not counted.
fn usable(members: &[Member], plan: &Plan<'_>) -> Usable {
    let mut usable = Usable::default();
    for member in members {
        let counted = match plan.policy.is_weighted {
            true => f64::from(member.endpoint.weight),
            false => 1.0,
        };
        match member.endpoint.standing(plan.now) {
            Standing::Healthy => usable.healthy += counted,
            Standing::Degraded => usable.degraded += counted,
            Standing::Unhealthy => {}
            Standing::Draining => continue,
        }
        usable.all += counted;
    }
    usable
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::cluster::endpoint::EndpointTransport;
    use crate::config::cluster::Discovery;
    use crate::config::cluster::outlier::OutlierDetection;
    use crate::config::endpoints::EndpointHealth::{self, Degraded, Draining, Healthy, Unhealthy};
    use crate::config::percent::Percent;

    fn member(port: u16, priority: u32, health: EndpointHealth) -> Member {
        let address = ([127, 0, 0, 1], port).into();
        Member {
            priority,
            place: 0,
            endpoint: Arc::new(Endpoint {
                health,
                ..Endpoint::at(address, EndpointTransport::Plaintext)
            }),
        }
    }

    fn config(panic_threshold: u32) -> ClusterConfig {
        ClusterConfig {
            panic_threshold: Percent::of(panic_threshold),
            ..ClusterConfig::new("reviews", Discovery::OriginalDestination)
        }
    }

    fn arranged(members: &[Member], places: &[u32], config: &ClusterConfig) -> Arrangement {
        let places: Vec<_> = places
            .iter()
            .map(|weight| Place {
                locality: Arc::default(),
                priority: 0,
                weight: *weight,
            })
            .collect();
        let mut turns = KeptTurns::default();
        let mut plan = Plan {
            config,
            places: &places,
            policy: &HealthPolicy::default(),
            localities: config.localities,
            scales: None,
            turns: &mut turns,
            scope: "".into(),
            now: Instant::now(),
            near: None,
        };
        Arrangement::new(members, &mut plan)
    }

    fn counts(arrangement: &Arrangement) -> BTreeMap<u16, u32> {
        let mut random = SmallRng::seed_from_u64(3);
        let draw = Draw {
            hash: None,
            avoid: &[],
            omit: None,
            left: Priorities::NONE,
            active: 0,
            now: Instant::now(),
        };
        let mut counts = BTreeMap::new();
        for _ in 0..10_000 {
            if let Some(endpoint) = arrangement.choose(&draw, &mut random) {
                *counts.entry(endpoint.address.port()).or_insert(0) += 1;
            }
        }
        counts
    }

    fn used(members: &[Member], panic_threshold: u32) -> Vec<u16> {
        let arrangement = arranged(members, &[0], &config(panic_threshold));
        counts(&arrangement).into_keys().collect()
    }

    #[test]
    fn only_healthy_endpoints_of_the_first_priority_are_used_while_they_are_enough() {
        let mut members: Vec<_> = (1..=3).map(|port| member(port, 0, Healthy)).collect();
        members.push(member(4, 0, Unhealthy));
        members.push(member(5, 1, Healthy));

        assert_eq!(used(&members, 0), [1, 2, 3]);
    }

    #[test]
    fn what_a_priority_cannot_carry_spills_over() {
        let members = [
            member(1, 0, Healthy),
            member(2, 0, Unhealthy),
            member(3, 1, Healthy),
        ];

        let counts = counts(&arranged(&members, &[0], &config(0)));

        // 140 % of one half; five deviations are 229.
        assert!(counts[&1].abs_diff(7000) <= 229, "{counts:?}");
        assert!(!counts.contains_key(&2));
    }

    #[test]
    fn degraded_endpoints_serve_where_no_healthy_one_is_left() {
        assert_eq!(
            used(&[member(1, 0, Unhealthy), member(2, 0, Degraded)], 50),
            [2]
        );
    }

    #[test]
    fn what_drains_does_not_make_a_priority_panic() {
        let members = [
            member(1, 0, Healthy),
            member(2, 0, Draining),
            member(3, 0, Draining),
        ];

        let arrangement = arranged(&members, &[0], &config(50));

        assert!(!arrangement.panics());
    }

    #[test]
    fn a_hash_is_looked_up_among_healthy_endpoints_while_there_are_any() {
        let hashing = ClusterConfig {
            balancer: Balancer::Maglev { table_size: 251 },
            ..config(0)
        };
        let used = |health| {
            let members = [member(1, 0, health), member(2, 0, Degraded)];
            counts(&arranged(&members, &[0], &hashing))
                .into_keys()
                .collect::<Vec<_>>()
        };

        assert_eq!(used(Healthy), [1]);
        assert_eq!(used(Unhealthy), [2]);
    }

    #[test]
    fn what_drains_is_given_nothing_even_in_panic() {
        assert!(used(&[member(1, 0, Draining)], 50).is_empty());
        assert_eq!(
            used(&[member(1, 0, Draining), member(2, 0, Unhealthy)], 50),
            [2]
        );
    }

    #[test]
    fn in_panic_all_are_used_unless_that_is_switched_off() {
        let members: Vec<_> = (1..=4).map(|port| member(port, 0, Healthy)).collect();
        for member in &members[..3] {
            let detection = OutlierDetection::default();
            let outlier = &member.endpoint.state.outlier;
            outlier.eject(&detection, Duration::ZERO, Instant::now());
        }

        assert_eq!(used(&members, 0), [4]);
        assert_eq!(used(&members, 50), [1, 2, 3, 4]);
        let failing = ClusterConfig {
            fails_on_panic: true,
            ..config(50)
        };
        assert!(counts(&arranged(&members, &[0], &failing)).is_empty());
    }

    #[test]
    fn localities_have_their_shares_where_that_is_asked_for() {
        let members: Vec<_> = (1..=4)
            .map(|port| Member {
                place: usize::from(port > 1),
                ..member(port, 0, Healthy)
            })
            .collect();
        let weighted = ClusterConfig {
            localities: Localities::Weighted,
            ..config(50)
        };

        let pooled = counts(&arranged(&members, &[1, 1], &config(50)));
        let counts = counts(&arranged(&members, &[3, 1], &weighted));

        assert!(
            pooled.values().all(|count| count.abs_diff(2500) <= 1),
            "{pooled:?}"
        );
        assert!(counts[&1].abs_diff(7500) <= 10, "{counts:?}");
        assert!(counts[&2].abs_diff(833) <= 10, "{counts:?}");
    }

    #[test]
    fn a_locality_that_is_half_ill_gets_less() {
        let members: Vec<_> = (1..=4)
            .map(|port| {
                let health = if port == 1 { Unhealthy } else { Healthy };
                Member {
                    place: usize::from(port > 2),
                    ..member(port, 0, health)
                }
            })
            .collect();
        let weighted = ClusterConfig {
            localities: Localities::Weighted,
            ..config(0)
        };

        let counts = counts(&arranged(&members, &[1, 1], &weighted));

        // 70 % of one share against a whole one: 41.2 %.
        assert!(counts[&2].abs_diff(4118) <= 20, "{counts:?}");
    }

    #[test]
    fn a_new_endpoint_gets_its_share_little_by_little() {
        let slow_start = SlowStart {
            window: Duration::from_secs(60),
            aggression: 1.0,
            min_weight: 0.1,
        };
        let share = |seconds: u64| warmth(&slow_start, 1000, 1000 + seconds * 1000);

        assert!((share(1) - 0.1).abs() < 0.001);
        assert!((share(30) - 0.5).abs() < 0.001);
        assert!((share(60) - 1.0).abs() < 0.001);
        let eager = SlowStart {
            aggression: 2.0,
            ..slow_start
        };
        assert!((warmth(&eager, 1000, 16_000) - 0.5).abs() < 0.001);
    }
}
