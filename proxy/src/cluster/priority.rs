//! Which endpoints may be used: health, ejections, priorities, panic.
//!
//! Priority 0 is used while enough of it is healthy; what it cannot carry spills over to the next, as in
//! Envoy. Where too few are healthy at all, all are used: better some luck than none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use rand::Rng;

use super::NoEndpoint;
use super::balancer::Level;
use super::endpoint::Endpoint;
use super::random;
use crate::config::cluster::Balancer;
use crate::config::endpoints::EndpointHealth;
use crate::config::percent::Percent;

/// Endpoints by priority.
#[derive(Debug, Default)]
pub struct Priorities {
    levels: Vec<Level>,
    /// Whether discovery calls all of them healthy.
    is_all_healthy: bool,
    /// Whether any can be ejected.
    can_eject: bool,
}

/// An endpoint on its way into [`Priorities`].
#[derive(Debug)]
pub struct Member {
    /// Its priority.
    pub priority: u32,
    /// Its weight among those of its priority.
    pub weight: u64,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
}

/// What a choice depends on.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// How.
    pub balancer: Balancer,
    /// Below this share of usable endpoints all are used.
    pub panic_threshold: Percent,
    /// Whose turn it is.
    pub turn: &'a AtomicU64,
    /// Tried already.
    pub avoid: &'a [SocketAddr],
    /// Whether any endpoint can be out now.
    pub has_ejected: bool,
    /// Now.
    pub now: Instant,
}

/// Envoy's overprovisioning factor, in percent: a priority carries all while this many times its usable
/// share is the whole.
const OVERPROVISIONING: u64 = 140;

impl Priorities {
    /// From endpoints in any order.
    pub fn new(mut members: Vec<Member>, can_eject: bool) -> Self {
        members.sort_by_key(|member| member.priority);
        let is_all_healthy = members
            .iter()
            .all(|member| member.endpoint.health == EndpointHealth::Healthy);
        let levels = members
            .chunk_by(|one, other| one.priority == other.priority)
            .map(|level| {
                let weighted = |member: &Member| (Arc::clone(&member.endpoint), member.weight);
                Level::new(level.iter().map(weighted).collect())
            })
            .collect();
        Priorities {
            levels,
            is_all_healthy,
            can_eject,
        }
    }

    /// All endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.levels.iter().flat_map(Level::endpoints)
    }

    /// One of them.
    pub fn choose(
        &self,
        choice: &Choice<'_>,
        random: &mut impl Rng,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        let first = self.levels.first().ok_or(NoEndpoint::Empty)?;
        let is_calm = self.is_all_healthy && !(self.can_eject && choice.has_ejected);
        if is_calm {
            let untried = |endpoint: &Endpoint| !choice.avoid.contains(&endpoint.address);
            return draw(first, choice, random, untried, |_| true).ok_or(NoEndpoint::Unhealthy);
        }
        self.choose_among_troubled(choice, random)
    }

    fn choose_among_troubled(
        &self,
        choice: &Choice<'_>,
        random: &mut impl Rng,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        let is_usable = |endpoint: &Endpoint| {
            endpoint.health == EndpointHealth::Healthy
                && !endpoint.state.outlier.is_ejected(choice.now)
        };
        let untried = |endpoint: &Endpoint| !choice.avoid.contains(&endpoint.address);
        let usable = self
            .endpoints()
            .filter(|endpoint| is_usable(endpoint))
            .count();
        let all = self.endpoints().count();
        let is_panic = usable == 0 || usable < choice.panic_threshold.share_of(all);

        if !is_panic {
            let level = self.level_by_health(random, is_usable);
            let untried_and_usable = |endpoint: &Endpoint| untried(endpoint) && is_usable(endpoint);
            return draw(level, choice, random, untried_and_usable, is_usable)
                .ok_or(NoEndpoint::Unhealthy);
        }
        let is_degraded = |endpoint: &Endpoint| endpoint.health == EndpointHealth::Degraded;
        let not_unhealthy = |endpoint: &Endpoint| {
            matches!(
                endpoint.health,
                EndpointHealth::Healthy | EndpointHealth::Degraded
            )
        };
        self.levels
            .iter()
            .find_map(|level| draw(level, choice, random, is_degraded, not_unhealthy))
            .ok_or(NoEndpoint::Unhealthy)
    }

    /// Draws a level by what each can carry.
    fn level_by_health(
        &self,
        random: &mut impl Rng,
        is_usable: impl Fn(&Endpoint) -> bool,
    ) -> &Level {
        let carried = |level: &Level| {
            let all = level.endpoints().len() as u64;
            let usable = level
                .endpoints()
                .iter()
                .filter(|each| is_usable(each))
                .count() as u64;
            (usable * OVERPROVISIONING / all.max(1)).min(100)
        };
        let mut rest = 100;
        let shares: Vec<u64> = self
            .levels
            .iter()
            .map(|level| {
                let share = carried(level).min(rest);
                rest -= share;
                share
            })
            .collect();
        let mut point = random::below(random, 100 - rest);
        for (level, share) in self.levels.iter().zip(&shares) {
            if point < *share {
                return level;
            }
            point -= share;
        }
        // The point is below the sum of the shares; with no share at all the first level serves.
        &self.levels[0]
    }
}

/// One that is preferred, else one that is allowed.
fn draw(
    level: &Level,
    choice: &Choice<'_>,
    random: &mut impl Rng,
    is_preferred: impl Fn(&Endpoint) -> bool,
    is_allowed: impl Fn(&Endpoint) -> bool,
) -> Option<Arc<Endpoint>> {
    level
        .choose(choice.balancer, choice.turn, random, is_preferred)
        .or_else(|| level.choose(choice.balancer, choice.turn, random, is_allowed))
        .cloned()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::cluster::endpoint::EndpointTransport;

    fn member(port: u16, priority: u32, health: EndpointHealth) -> Member {
        Member {
            priority,
            weight: 1,
            endpoint: Arc::new(Endpoint {
                address: ([127, 0, 0, 1], port).into(),
                hostname: None,
                weight: 1,
                health,
                workload: Arc::default(),
                locality: Arc::default(),
                transport: EndpointTransport::Plaintext,
                state: Arc::default(),
                connections: Arc::default(),
            }),
        }
    }

    fn counts(priorities: &Priorities, panic_threshold: u32) -> Vec<(u16, usize)> {
        let mut random = SmallRng::seed_from_u64(3);
        let turn = AtomicU64::new(0);
        let choice = Choice {
            balancer: Balancer::RoundRobin,
            panic_threshold: Percent::of(panic_threshold),
            turn: &turn,
            avoid: &[],
            has_ejected: true,
            now: Instant::now(),
        };
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..1000 {
            if let Ok(endpoint) = priorities.choose(&choice, &mut random) {
                *counts.entry(endpoint.address.port()).or_insert(0) += 1;
            }
        }
        counts.into_iter().collect()
    }

    #[test]
    fn only_healthy_endpoints_of_the_first_priority_are_used_while_they_are_enough() {
        use EndpointHealth::{Healthy, Unhealthy};
        let priorities = Priorities::new(
            vec![
                member(1, 0, Healthy),
                member(2, 0, Healthy),
                member(3, 0, Healthy),
                member(4, 0, Unhealthy),
                member(5, 1, Healthy),
            ],
            false,
        );

        let ports: Vec<_> = counts(&priorities, 0)
            .into_iter()
            .map(|(port, _)| port)
            .collect();

        assert_eq!(ports, [1, 2, 3]);
    }

    #[test]
    fn what_a_priority_cannot_carry_spills_over() {
        use EndpointHealth::{Healthy, Unhealthy};
        let priorities = Priorities::new(
            vec![
                member(1, 0, Healthy),
                member(2, 0, Unhealthy),
                member(3, 1, Healthy),
            ],
            false,
        );

        let counts = counts(&priorities, 0);

        // 140 % of one half.
        assert!((650..=750).contains(&counts[0].1), "{counts:?}");
        assert_eq!(counts[1].0, 3);
    }

    #[test]
    fn degraded_endpoints_serve_where_no_healthy_one_is_left() {
        use EndpointHealth::{Degraded, Unhealthy};
        let priorities =
            Priorities::new(vec![member(1, 0, Unhealthy), member(2, 0, Degraded)], false);

        assert_eq!(counts(&priorities, 50), [(2, 1000)]);
    }

    #[test]
    fn without_any_usable_endpoint_there_is_none() {
        let priorities = Priorities::new(vec![member(1, 0, EndpointHealth::Draining)], false);

        assert_eq!(counts(&priorities, 50), []);
        assert!(counts(&Priorities::default(), 50).is_empty());
    }

    #[test]
    fn where_too_few_are_usable_ejected_ones_serve_again() {
        let members: Vec<_> = (1..=4)
            .map(|port| member(port, 0, EndpointHealth::Healthy))
            .collect();
        let config = crate::config::cluster::OutlierDetection::default();
        for member in &members[..3] {
            member.endpoint.state.outlier.eject(&config, Instant::now());
        }
        let priorities = Priorities::new(members, true);

        assert_eq!(counts(&priorities, 0).len(), 1);
        assert_eq!(counts(&priorities, 50).len(), 4);
    }
}
