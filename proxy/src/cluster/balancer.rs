//! Choosing one of several endpoints that may all be used.
//!
//! A list is made when endpoints or their health change, with everything its policy needs; a choice reads it, and
//! neither locks nor allocates.

mod chances;
mod hashed;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rand::Rng;

use self::chances::Chances;
use self::hashed::{Points, hash_method};
use super::endpoint::Endpoint;
use super::priorities::Priorities;
use super::turns::Turns;
use crate::config::balancing::{Among, Balancer, Hashing, Omission};
use crate::random;

/// What a choice depends on.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// The request's hash, where it has one.
    pub hash: Option<u64>,
    /// Endpoints that have been tried.
    pub avoid: &'a [SocketAddr],
    /// Endpoints that are passed over, by their labels.
    pub omit: Option<&'a Omission>,
    /// Priorities that are left out while there are others.
    pub left: Priorities,
    /// How many requests are in flight in the cluster.
    pub active: u32,
    /// Now.
    pub now: Instant,
}

impl Draw<'_> {
    /// Whether an endpoint may be taken while there are others.
    pub(super) fn may_take(&self, endpoint: &Endpoint) -> bool {
        let is_omitted = || self.omit.is_some_and(|omit| omit.covers(&endpoint.labels));
        !self.avoid.contains(&endpoint.address) && !is_omitted()
    }
}

/// Endpoints, ready to be drawn from.
#[derive(Debug)]
pub struct List {
    endpoints: Vec<Arc<Endpoint>>,
    method: Method,
}

/// How a list is drawn from.
#[derive(Debug)]
enum Method {
    Turns(Turns),
    Chance,
    LeastRequest {
        chances: Chances,
        choices: u32,
        bias: f64,
        among: Among,
    },
    PeakEwma {
        decay: Duration,
        default_latency: Duration,
    },
    Hash {
        points: Points,
        /// Shares of the endpoints, and the most that one may have, in percent of its share.
        bound: Option<(Vec<f64>, u32)>,
    },
}

/// How often a policy draws before all endpoints are looked at.
const DRAWS: usize = 4;

impl List {
    /// Endpoints with their weights.
    pub fn new(
        endpoints: Vec<(Arc<Endpoint>, f64)>,
        balancer: Balancer,
        hashing: Hashing,
        turn: Arc<AtomicU64>,
    ) -> Self {
        let weights: Vec<f64> = endpoints.iter().map(|(_, weight)| *weight).collect();
        let endpoints: Vec<_> = endpoints
            .into_iter()
            .map(|(endpoint, _)| endpoint)
            .collect();
        let method = match balancer {
            Balancer::RoundRobin => Method::Turns(Turns::new(&weights, turn)),
            Balancer::Random => Method::Chance,
            Balancer::LeastRequest {
                choice_count,
                bias,
                among,
            } => Method::LeastRequest {
                chances: Chances::new(weights),
                choices: choice_count.max(2),
                bias,
                among,
            },
            Balancer::PeakEwma {
                decay,
                default_latency,
            } => Method::PeakEwma {
                decay,
                default_latency,
            },
            Balancer::RingHash { .. } | Balancer::Maglev { .. } => {
                hash_method(&endpoints, &weights, balancer, hashing)
            }
        };
        List { endpoints, method }
    }

    /// All of them.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// One of them; one that has been tried, or is to be passed over, only where there is no other.
    pub fn choose(&self, draw: &Draw<'_>, random: &mut impl Rng) -> Option<&Arc<Endpoint>> {
        let hash = draw.hash.unwrap_or_else(|| random.next_u64());
        let mut last = None;
        for attempt in 0..DRAWS {
            let drawn = self
                .endpoints
                .get(self.draw(draw, hash, attempt, random)?)?;
            if draw.may_take(drawn) {
                return Some(drawn);
            }
            last = Some(drawn);
        }
        let count = self.endpoints.len();
        let start = usize::try_from(random::below(random, count as u64)).unwrap_or(0);
        let untried = (0..count)
            .map(|step| &self.endpoints[(start + step) % count])
            .find(|endpoint| draw.may_take(endpoint));
        untried.or(last)
    }

    fn draw(
        &self,
        draw: &Draw<'_>,
        hash: u64,
        attempt: usize,
        random: &mut impl Rng,
    ) -> Option<usize> {
        if self.endpoints.is_empty() {
            return None;
        }
        match &self.method {
            Method::Turns(turns) => Some(turns.next()),
            Method::Chance => Some(self.any(random)),
            Method::LeastRequest {
                chances,
                choices,
                bias,
                among: Among::Drawn,
            } => Some(self.least_busy(chances, *choices, *bias, random)),
            Method::LeastRequest {
                chances,
                bias,
                among: Among::All,
                ..
            } => Some(self.least_busy_of_all(chances, *bias, random)),
            Method::PeakEwma {
                decay,
                default_latency,
            } => {
                let cost = |index: usize| {
                    let state = &self.endpoints[index].state;
                    let latency = state.latency.expected(*default_latency, *decay, draw.now);
                    f64::from(latency) * (f64::from(state.active()) + 1.0)
                };
                let (one, other) = self.two(random);
                Some(if cost(other) < cost(one) { other } else { one })
            }
            Method::Hash { points, bound } => {
                let chosen = match points {
                    Points::Ring(ring) => ring.choose(hash, attempt),
                    Points::Maglev(maglev) => maglev.choose(hash, attempt),
                }?;
                Some(match bound {
                    Some((shares, factor)) => self.bounded(chosen, hash, shares, *factor, draw),
                    None => chosen,
                })
            }
        }
    }

    fn any(&self, random: &mut impl Rng) -> usize {
        usize::try_from(random::below(random, self.endpoints.len() as u64)).unwrap_or(0)
    }

    /// Two different ones, where there are two.
    fn two(&self, random: &mut impl Rng) -> (usize, usize) {
        let count = self.endpoints.len();
        let one = self.any(random);
        if count < 2 {
            return (one, one);
        }
        let step = usize::try_from(random::below(random, count as u64 - 1)).unwrap_or(0);
        (one, (one + 1 + step) % count)
    }

    /// The least busy, for its weight, of some; the first drawn among equals, so that idle endpoints share by weight.
    fn least_busy(
        &self,
        chances: &Chances,
        choices: u32,
        bias: f64,
        random: &mut impl Rng,
    ) -> usize {
        let mut best = chances.draw(random);
        for _ in 1..choices {
            let other = chances.draw(random);
            if other != best && self.load(other, chances, bias) < self.load(best, chances, bias) {
                best = other;
            }
        }
        best
    }

    /// The least busy, for its weight, of all; by chance among equals.
    fn least_busy_of_all(&self, chances: &Chances, bias: f64, random: &mut impl Rng) -> usize {
        let mut best = chances.draw(random);
        let start = self.any(random);
        let count = self.endpoints.len();
        for step in 0..count {
            let other = (start + step) % count;
            if self.load(other, chances, bias) < self.load(best, chances, bias) {
                best = other;
            }
        }
        best
    }

    fn load(&self, index: usize, chances: &Chances, bias: f64) -> f64 {
        let active = f64::from(self.endpoints[index].state.active());
        #[allow(clippy::float_cmp, reason = "the usual value, as it was configured")]
        let counted = if bias == 1.0 {
            active
        } else if active == 0.0 {
            0.0
        } else {
            active.powf(bias)
        };
        counted / chances.weights[index]
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::cluster::endpoint::EndpointTransport;
    use crate::cluster::hash::xxhash;
    use crate::config::balancing::HashFunction;

    const RING: Balancer = Balancer::RingHash {
        min_size: 1024,
        max_size: 8_388_608,
        function: HashFunction::XxHash,
    };
    const MAGLEV: Balancer = Balancer::Maglev { table_size: 65_537 };

    fn endpoint(port: u16) -> Arc<Endpoint> {
        let address = ([127, 0, 0, 1], port).into();
        Arc::new(Endpoint::at(address, EndpointTransport::Plaintext))
    }

    fn list(weights: &[f64], balancer: Balancer) -> List {
        bounded_list(weights, balancer, Hashing::default())
    }

    fn bounded_list(weights: &[f64], balancer: Balancer, hashing: Hashing) -> List {
        let endpoints = (1..)
            .zip(weights)
            .map(|(port, weight)| (endpoint(port), *weight));
        List::new(endpoints.collect(), balancer, hashing, Arc::default())
    }

    fn draw<'a>(hash: Option<u64>, avoid: &'a [SocketAddr]) -> Draw<'a> {
        Draw {
            hash,
            avoid,
            omit: None,
            left: Priorities::NONE,
            active: 0,
            now: Instant::now(),
        }
    }

    fn index(chosen: &Endpoint) -> usize {
        usize::from(chosen.address.port()) - 1
    }

    fn shares(list: &List, draws: usize) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut counts = vec![0; list.endpoints().len()];
        for _ in 0..draws {
            counts[index(list.choose(&draw(None, &[]), &mut random).expect("one"))] += 1;
        }
        counts
    }

    /// Pearson's statistic; with four endpoints it exceeds 21.1 once in ten thousand seeds.
    fn chi_squared(counts: &[usize], weights: &[f64]) -> f64 {
        let draws: usize = counts.iter().sum();
        let sum: f64 = weights.iter().sum();
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let terms = counts.iter().zip(weights).map(|(count, weight)| {
            let expected = draws as f64 * weight / sum;
            (*count as f64 - expected).powi(2) / expected
        });
        terms.sum()
    }

    #[test]
    fn random_takes_all_alike_whatever_their_weights() {
        let counts = shares(&list(&[9.0, 1.0, 1.0, 1.0], Balancer::Random), 20_000);

        assert!(chi_squared(&counts, &[1.0; 4]) < 21.1, "{counts:?}");
    }

    #[test]
    fn least_request_among_idle_endpoints_follows_the_weights() {
        let weights = [4.0, 3.0, 2.0, 1.0];
        let counts = shares(&list(&weights, Balancer::LEAST_REQUEST), 20_000);

        assert!(chi_squared(&counts, &weights) < 21.1, "{counts:?}");
    }

    #[test]
    fn least_request_prefers_the_less_busy() {
        let list = list(&[1.0, 1.0, 1.0], Balancer::LEAST_REQUEST);
        let _busy: Vec<_> = (0..10).map(|_| list.endpoints()[0].state.begin()).collect();

        let counts = shares(&list, 9_000);

        // It is taken only where both draws hit it: one in nine. Five deviations are 150.
        assert!((850..=1150).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn least_request_of_all_never_takes_a_busier_one() {
        let balancer = Balancer::LeastRequest {
            choice_count: 2,
            bias: 1.0,
            among: Among::All,
        };
        let list = list(&[1.0, 1.0, 1.0], balancer);
        let _busy = list.endpoints()[0].state.begin();

        assert_eq!(shares(&list, 1000)[0], 0);
    }

    #[test]
    fn without_a_bias_least_request_does_not_look_at_requests() {
        let balancer = Balancer::LeastRequest {
            choice_count: 2,
            bias: 0.0,
            among: Among::Drawn,
        };
        let list = list(&[1.0, 1.0], balancer);
        let _one = list.endpoints()[0].state.begin();
        let _other = list.endpoints()[1].state.begin();
        let _more: Vec<_> = (0..50).map(|_| list.endpoints()[0].state.begin()).collect();

        let counts = shares(&list, 10_000);

        // Five deviations of a fair coin.
        assert!(counts[0].abs_diff(5000) <= 250, "{counts:?}");
    }

    #[test]
    fn peak_ewma_goes_where_answers_come_sooner() {
        let decay = Duration::from_secs(10);
        let balancer = Balancer::PeakEwma {
            decay,
            default_latency: Duration::from_millis(10),
        };
        let list = list(&[1.0, 1.0, 1.0], balancer);
        let slow = &list.endpoints()[0].state.latency;
        slow.record(Duration::from_secs(1), decay, Instant::now());

        assert_eq!(shares(&list, 1000)[0], 0);
    }

    #[test]
    fn the_same_hash_goes_to_the_same_endpoint() {
        let mut random = SmallRng::seed_from_u64(1);
        for balancer in [RING, MAGLEV] {
            let list = list(&[1.0; 4], balancer);
            let mut at = |hash| {
                index(
                    list.choose(&draw(Some(hash), &[]), &mut random)
                        .expect("one"),
                )
            };
            for request in 0..200_u64 {
                let hash = xxhash(0, &request.to_le_bytes());
                assert_eq!(at(hash), at(hash));
            }
        }
    }

    #[test]
    fn hashing_follows_the_weights() {
        let weights = [4.0, 2.0, 1.0, 1.0];
        for (balancer, tolerance) in [(MAGLEV, 0.02), (RING, 0.15)] {
            let counts = shares(&list(&weights, balancer), 40_000);
            for (count, weight) in counts.iter().zip(weights) {
                #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
                let share = *count as f64 / 40_000.0;
                // A ring of about a thousand points is no better than this; a table is exact to a place.
                assert!((share - weight / 8.0).abs() < tolerance, "{counts:?}");
            }
        }
    }

    #[test]
    fn a_bounded_load_spills_over_to_the_same_other_endpoint() {
        let hashing = Hashing {
            by_hostname: false,
            balance_factor: Some(150),
        };
        let mut random = SmallRng::seed_from_u64(1);
        let list = bounded_list(&[1.0; 4], MAGLEV, hashing);
        let hash = xxhash(0, b"hot");
        let mut at = |active| {
            let draw = Draw {
                active,
                ..draw(Some(hash), &[])
            };
            index(list.choose(&draw, &mut random).expect("one"))
        };
        let first = at(0);
        // With 8 in flight each may have 150 % of 2.
        let _held: Vec<_> = (0..3)
            .map(|_| list.endpoints()[first].state.begin())
            .collect();

        let other = at(8);

        assert_ne!(other, first);
        assert_eq!(at(8), other);
        assert_eq!(at(80), first);
    }

    #[test]
    fn what_was_tried_is_avoided_while_there_is_another() {
        let mut random = SmallRng::seed_from_u64(1);
        let tried: Vec<SocketAddr> = (1..=3).map(|port| ([127, 0, 0, 1], port).into()).collect();
        for balancer in [
            Balancer::RoundRobin,
            Balancer::Random,
            Balancer::LEAST_REQUEST,
            RING,
            MAGLEV,
        ] {
            let list = list(&[1.0; 4], balancer);
            for request in 0..50_u64 {
                let hash = Some(xxhash(0, &request.to_le_bytes()));
                let chosen = list.choose(&draw(hash, &tried), &mut random);
                assert_eq!(chosen.map(|chosen| index(chosen)), Some(3));
            }
        }
        let list = list(&[1.0; 3], Balancer::RoundRobin);
        assert!(list.choose(&draw(None, &tried), &mut random).is_some());
    }

    #[test]
    fn among_none_there_is_none_to_choose() {
        let mut random = SmallRng::seed_from_u64(1);
        for balancer in [Balancer::Random, Balancer::LEAST_REQUEST, RING, MAGLEV] {
            let list = List::new(vec![], balancer, Hashing::default(), Arc::default());
            assert!(list.choose(&draw(None, &[]), &mut random).is_none());
        }
    }
}
