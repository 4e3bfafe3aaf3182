//! Choosing by a request's hash: what endpoints are hashed by, and where those go that find theirs too busy.

use std::sync::Arc;

use super::{Draw, List, Method};
use crate::cluster::endpoint::Endpoint;
use crate::cluster::hash::HashedEndpoint;
use crate::cluster::hash::maglev::Maglev;
use crate::cluster::hash::ring::Ring;
use crate::config::balancing::{Balancer, Hashing};

/// Where hashes are looked up.
#[derive(Debug)]
pub(super) enum Points {
    Ring(Ring),
    Maglev(Maglev),
}

impl List {
    /// The one that the hash is at, unless it has more than its share; then the next in an order that the hash
    /// decides, too, that has not.
    pub(super) fn bounded(
        &self,
        chosen: usize,
        hash: u64,
        shares: &[f64],
        factor: u32,
        draw: &Draw<'_>,
    ) -> usize {
        let total = f64::from(draw.active.max(1));
        let fullness = |index: usize| {
            let room = (total * f64::from(factor) * shares[index] / 100.0)
                .ceil()
                .max(1.0);
            f64::from(self.endpoints[index].state.active()) / room
        };
        if fullness(chosen) < 1.0 {
            return chosen;
        }
        let count = self.endpoints.len() as u64;
        let mut best = (chosen, fullness(chosen));
        let step = coprime_step(hash, count);
        let mut at = hash % count;
        for _ in 0..count {
            let index = usize::try_from(at).unwrap_or(0);
            let full = fullness(index);
            if full < 1.0 {
                return index;
            }
            if full < best.1 {
                best = (index, full);
            }
            at = (at + step) % count;
        }
        best.0
    }
}

/// A step that visits all places before the first comes again.
fn coprime_step(hash: u64, count: u64) -> u64 {
    let gcd = |mut one: u64, mut other: u64| {
        while other != 0 {
            (one, other) = (other, one % other);
        }
        one
    };
    let first = (hash >> 32) % count.max(1) + 1;
    (first..first + count)
        .find(|step| gcd(*step, count) == 1)
        .unwrap_or(1)
}

/// Of endpoints with weights.
pub(super) fn hash_method(
    endpoints: &[Arc<Endpoint>],
    weights: &[f64],
    balancer: Balancer,
    hashing: Hashing,
) -> Method {
    let sum: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights
        .iter()
        .map(|weight| weight / sum.max(f64::MIN_POSITIVE))
        .collect();
    let keys: Vec<String> = endpoints
        .iter()
        .map(|endpoint| key(endpoint, hashing.by_hostname))
        .collect();
    let hashed: Vec<_> = keys
        .iter()
        .zip(&shares)
        .map(|(key, weight)| HashedEndpoint {
            key,
            weight: *weight,
        })
        .collect();
    let points = match balancer {
        Balancer::RingHash {
            min_size,
            max_size,
            function,
        } => Points::Ring(Ring::new(&hashed, min_size, max_size, function)),
        Balancer::Maglev { table_size } => Points::Maglev(Maglev::new(&hashed, table_size)),
        _ => Points::Ring(Ring::new(
            &[],
            1,
            1,
            crate::config::balancing::HashFunction::XxHash,
        )),
    };
    Method::Hash {
        points,
        bound: hashing.balance_factor.map(|factor| (shares, factor)),
    }
}

/// What an endpoint is hashed by: what its metadata says, else its name where that is asked for, else its address.
fn key(endpoint: &Endpoint, by_hostname: bool) -> String {
    let said = endpoint.labels.get("hash_key").and_then(|value| {
        let text: String = serde_json::from_str(&value.text).ok()?;
        (!text.is_empty()).then_some(text)
    });
    let named = || {
        endpoint
            .hostname
            .as_deref()
            .filter(|_| by_hostname)
            .map(str::to_owned)
    };
    said.or_else(named)
        .unwrap_or_else(|| endpoint.address.to_string())
}
