//! Choosing one of several endpoints.
//!
//! `cluster` says which endpoints are eligible; the balancer draws among them by its policy. Weights are
//! those of the level: an endpoint's own, scaled by its locality's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;

use super::endpoint::Endpoint;
use super::random;
use crate::config::cluster::Balancer;

/// Endpoints of one priority, ready to be drawn from.
#[derive(Debug)]
pub struct Level {
    endpoints: Vec<Arc<Endpoint>>,
    /// Sums of the weights up to and with each endpoint.
    cumulative: Vec<u64>,
    /// Weights scaled so that the largest is `u16::MAX`, for taking turns.
    strides: Vec<u16>,
    is_even: bool,
}

/// How often a policy draws before all eligible endpoints are looked at.
const DRAWS: usize = 4;

impl Level {
    /// Endpoints with their weights.
    pub fn new(endpoints: Vec<(Arc<Endpoint>, u64)>) -> Self {
        let largest = endpoints
            .iter()
            .map(|(_, weight)| *weight)
            .max()
            .unwrap_or(1)
            .max(1);
        let is_even = endpoints.iter().all(|(_, weight)| *weight == largest);
        let strides = endpoints
            .iter()
            .map(|(_, weight)| stride(*weight, largest))
            .collect();
        let cumulative = endpoints
            .iter()
            .scan(0_u64, |sum, (_, weight)| {
                *sum = sum.saturating_add(*weight);
                Some(*sum)
            })
            .collect();
        Level {
            endpoints: endpoints
                .into_iter()
                .map(|(endpoint, _)| endpoint)
                .collect(),
            cumulative,
            strides,
            is_even,
        }
    }

    /// All of them.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// One of the eligible, if there is one.
    pub fn choose(
        &self,
        balancer: Balancer,
        turn: &AtomicU64,
        random: &mut impl Rng,
        is_eligible: impl Fn(&Endpoint) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        if self.endpoints.is_empty() {
            return None;
        }
        for _ in 0..DRAWS {
            let drawn = &self.endpoints[self.draw(balancer, turn, random)];
            if is_eligible(drawn) {
                return Some(drawn);
            }
        }
        let eligible: Vec<_> = self
            .endpoints
            .iter()
            .filter(|each| is_eligible(each))
            .collect();
        let at = random::below(random, eligible.len() as u64);
        eligible.get(usize::try_from(at).unwrap_or(0)).copied()
    }

    fn draw(&self, balancer: Balancer, turn: &AtomicU64, random: &mut impl Rng) -> usize {
        match balancer {
            Balancer::RoundRobin => self.next_in_turn(turn),
            Balancer::Random => self.draw_by_weight(random),
            Balancer::LeastRequest { choice_count } => self.least_busy(choice_count, random),
        }
    }

    /// The least busy, for its weight, of some; the first drawn among equals.
    fn least_busy(&self, choice_count: u32, random: &mut impl Rng) -> usize {
        let mut best = self.draw_by_weight(random);
        for _ in 1..choice_count.max(2) {
            let other = self.draw_by_weight(random);
            if self.is_less_busy(other, best) {
                best = other;
            }
        }
        best
    }

    fn is_less_busy(&self, one: usize, other: usize) -> bool {
        let load = |index: usize| u64::from(self.endpoints[index].state.active());
        load(one) * u64::from(self.strides[other]) < load(other) * u64::from(self.strides[one])
    }

    fn draw_by_weight(&self, random: &mut impl Rng) -> usize {
        let count = self.endpoints.len();
        if self.is_even {
            return usize::try_from(random::below(random, count as u64)).unwrap_or(0);
        }
        let total = self.cumulative.last().copied().unwrap_or(0);
        let point = random::below(random, total);
        self.cumulative
            .partition_point(|sum| *sum <= point)
            .min(count - 1)
    }

    /// Static stride scheduling without a lock, as in gRPC's weighted round robin (gRFC A58): each endpoint
    /// is visited once a round, and skipped in a share of the rounds that leaves it its weight.
    fn next_in_turn(&self, turn: &AtomicU64) -> usize {
        const WHOLE: u64 = u16::MAX as u64;
        let count = self.endpoints.len() as u64;
        loop {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let (round, index) = (turn / count, turn % count);
            // Below `count`, which came from a `usize`.
            let index = usize::try_from(index).unwrap_or(0);
            let stride = u64::from(self.strides[index]);
            let offset = WHOLE / 2 * index as u64;
            let phase = (stride.wrapping_mul(round).wrapping_add(offset)) % WHOLE;
            // The largest weight is a whole stride and is never skipped: the loop ends within a round.
            if phase >= WHOLE - stride {
                return index;
            }
        }
    }
}

fn stride(weight: u64, largest: u64) -> u16 {
    let scaled = u128::from(weight) * u128::from(u16::MAX) / u128::from(largest);
    u16::try_from(scaled).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::cluster::endpoint::EndpointTransport;
    use crate::config::endpoints::EndpointHealth;

    fn endpoint(port: u16) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            address: ([127, 0, 0, 1], port).into(),
            hostname: None,
            weight: 1,
            health: EndpointHealth::Healthy,
            workload: Arc::default(),
            locality: Arc::default(),
            transport: EndpointTransport::Plaintext,
            state: Arc::default(),
            connections: Arc::default(),
        })
    }

    fn level(weights: &[u64]) -> Level {
        let endpoints = (1..)
            .zip(weights)
            .map(|(port, weight)| (endpoint(port), *weight));
        Level::new(endpoints.collect())
    }

    fn shares(level: &Level, balancer: Balancer, draws: usize) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(1);
        let turn = AtomicU64::new(0);
        let mut counts = vec![0; level.endpoints().len()];
        for _ in 0..draws {
            let chosen = level
                .choose(balancer, &turn, &mut random, |_| true)
                .expect("one");
            counts[usize::from(chosen.address.port()) - 1] += 1;
        }
        counts
    }

    #[test]
    fn taking_turns_among_equals_is_exact() {
        assert_eq!(
            shares(&level(&[1, 1, 1]), Balancer::RoundRobin, 300),
            [100, 100, 100]
        );
    }

    #[test]
    fn taking_turns_follows_the_weights() {
        let counts = shares(&level(&[90, 10]), Balancer::RoundRobin, 1000);

        assert!((895..=905).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn drawing_follows_the_weights() {
        for balancer in [Balancer::Random, Balancer::LeastRequest { choice_count: 2 }] {
            let counts = shares(&level(&[3, 1]), balancer, 10_000);

            assert!(
                (7200..=7800).contains(&counts[0]),
                "{balancer:?} {counts:?}"
            );
        }
    }

    #[test]
    fn the_less_busy_endpoint_is_preferred() {
        let level = level(&[1, 1]);
        let _busy: Vec<_> = (0..5).map(|_| level.endpoints()[0].state.begin()).collect();

        let counts = shares(&level, Balancer::LeastRequest { choice_count: 2 }, 1000);

        // The busy one only where both draws hit it: a quarter.
        assert!((200..=300).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn only_the_eligible_are_chosen_however_few() {
        let level = level(&[1; 50]);
        let mut random = SmallRng::seed_from_u64(1);
        let turn = AtomicU64::new(0);

        for balancer in [Balancer::Random, Balancer::RoundRobin] {
            let chosen = level.choose(balancer, &turn, &mut random, |endpoint| {
                endpoint.address.port() == 37
            });
            assert_eq!(chosen.expect("one").address.port(), 37);
        }
        let none = level.choose(Balancer::Random, &turn, &mut random, |_| false);
        assert!(none.is_none());
    }
}
