//! Endpoints arranged to be chosen from: by priority, by health, by locality.
//!
//! Made anew when endpoints or their health change, off the path of requests.

pub mod plan;

use std::sync::Arc;

use rand::Rng;

use self::plan::Plan;
use super::balancer::{Draw, List};
use super::endpoint::{Endpoint, Standing};
use super::loads::{Loads, Part, Usable};
use super::members::Member;
use super::priorities::Priorities;
use super::turns::Turns;
use super::zones::Zoned;
use crate::config::balancing::Localities;
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
mod tests;
