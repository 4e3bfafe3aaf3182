//! What an arrangement is made of, and whose turn it is in each of its lists.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use crate::cluster::balancer::List;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::members::{Member, Place};
use crate::cluster::outlier::millis;
use crate::cluster::zones::Near;
use crate::config::balancing::{Balancer, Localities, SlowStart};
use crate::config::cluster::ClusterConfig;
use crate::config::endpoints::HealthPolicy;
use crate::random;

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

impl Plan<'_> {
    /// A list of these, with their weights scaled.
    pub(in crate::cluster) fn list(
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

    pub(super) fn turn(
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
