//! What is chosen, by priority, health and locality.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::plan::KeptTurns;
use super::*;
use crate::cluster::endpoint::EndpointTransport;
use crate::cluster::members::Place;
use crate::config::balancing::Balancer;
use crate::config::cluster::outlier::OutlierDetection;
use crate::config::cluster::{ClusterConfig, Discovery};
use crate::config::endpoints::EndpointHealth::{self, Degraded, Draining, Healthy, Unhealthy};
use crate::config::endpoints::HealthPolicy;
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
