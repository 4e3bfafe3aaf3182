//! What a cluster's endpoints look like at one moment: who may be chosen, and how.
//!
//! Requests read it; it is made anew when endpoints or their health change, and when time changes them.

use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::arrangement::Arrangement;
use super::arrangement::plan::{KeptTurns, Plan};
use super::members::Members;
use super::outlier::{instant, millis};
use super::subsets::Subsets;
use super::zones::Near;
use crate::config::balancing::Balancer;
use crate::config::cluster::ClusterConfig;

/// One moment's view.
#[derive(Debug, Default)]
pub struct Picture {
    /// All endpoints.
    pub all: Arrangement,
    /// The same, divided.
    pub subsets: Option<Subsets>,
    /// What has been chosen ahead, where the cluster has connections made so.
    pub ahead: Option<Ahead>,
    /// The version of the surroundings that were seen.
    pub vicinity: u64,
    /// When it is no longer true.
    pub due: Option<Instant>,
}

/// In a slow start, weights are made anew so often within its window.
const STEPS: u32 = 20;
/// But no more often than this.
const SHORTEST_STEP: Duration = Duration::from_millis(100);

impl Picture {
    /// Of now.
    pub fn new(
        config: &ClusterConfig,
        members: &Members,
        turns: &mut KeptTurns,
        (now, near): (Instant, Option<Near<'_>>),
    ) -> Self {
        turns.begin();
        // Before it is looked at: what changes meanwhile is seen as a change.
        let vicinity = near.map_or(0, |near| near.vicinity.version());
        let mut plan = Plan {
            config,
            places: members.places(),
            policy: members.policy(),
            localities: config.localities,
            scales: None,
            turns,
            scope: "".into(),
            now,
            near,
        };
        let all = Arrangement::new(members.all(), &mut plan);
        let subsets = config
            .subsets
            .as_ref()
            .map(|subsets| Subsets::new(subsets, members.all(), &mut plan));
        let foresees = config.predictive_preconnect_ratio.is_some()
            && config.balancer.is_foreseeable()
            && subsets.is_none();
        Picture {
            ahead: foresees.then(|| Ahead::among(members.all().len())),
            all,
            subsets,
            vicinity,
            due: due(config, members, now),
        }
    }
}

/// When an ejection or a degradation ends, or a slow start goes on, whichever is first.
fn due(config: &ClusterConfig, members: &Members, now: Instant) -> Option<Instant> {
    let now_millis = millis(now);
    let ejected = members
        .endpoints()
        .flat_map(|endpoint| {
            let outlier = &endpoint.state.outlier;
            [outlier.ejected_until(), outlier.degraded_until()]
        })
        .filter(|until| *until > now_millis)
        .min()
        .map(instant);
    let is_warming = config.slow_start.as_ref().filter(|slow_start| {
        let window = u64::try_from(slow_start.window.as_millis()).unwrap_or(u64::MAX);
        matches!(
            config.balancer,
            Balancer::RoundRobin | Balancer::LeastRequest { .. }
        ) && members
            .endpoints()
            .any(|endpoint| now_millis < endpoint.state.warm_since().saturating_add(window))
    });
    let warmer = is_warming.map(|slow_start| now + (slow_start.window / STEPS).max(SHORTEST_STEP));
    ejected.into_iter().chain(warmer).min()
}
