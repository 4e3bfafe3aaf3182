//! The endpoints of a cluster, as discovery names them, before anybody has chosen among them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::Endpoint;
use crate::config::endpoints::{HealthPolicy, Locality};

/// An endpoint and where it belongs.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its priority.
    pub priority: u32,
    /// Its locality, by number.
    pub place: usize,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
}

/// A locality at one priority.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it is.
    pub locality: Arc<Locality>,
    /// The priority.
    pub priority: u32,
    /// Its share among those of the priority.
    pub weight: u32,
}

/// All endpoints of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Members {
    all: Vec<Member>,
    places: Vec<Place>,
    policy: HealthPolicy,
    by_address: HashMap<SocketAddr, usize>,
}

impl Members {
    /// From endpoints in any order.
    pub fn new(mut all: Vec<Member>, places: Vec<Place>, policy: HealthPolicy) -> Self {
        all.sort_by_key(|member| member.priority);
        let mut by_address = HashMap::with_capacity(all.len());
        for (index, member) in all.iter().enumerate() {
            by_address.entry(member.endpoint.address).or_insert(index);
        }
        Members {
            all,
            places,
            policy,
            by_address,
        }
    }

    /// Whether endpoints are at the same addresses.
    pub fn has_same_addresses(&self, other: &Members) -> bool {
        self.by_address.len() == other.by_address.len()
            && self
                .by_address
                .keys()
                .all(|address| other.by_address.contains_key(address))
    }

    /// All, in order of priority.
    pub fn all(&self) -> &[Member] {
        &self.all
    }

    /// Their localities, by number.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// How health is turned into shares.
    pub fn policy(&self) -> &HealthPolicy {
        &self.policy
    }

    /// The one at an address.
    pub fn at(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        Some(&self.all[*self.by_address.get(&address)?].endpoint)
    }

    /// The priority of the one at an address.
    pub fn priority_at(&self, address: SocketAddr) -> Option<u32> {
        Some(self.all[*self.by_address.get(&address)?].priority)
    }

    /// The endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.all.iter().map(|member| &member.endpoint)
    }

    /// Keeps endpoints of a predecessor that are no longer named, as long as their health checks pass: Envoy trusts
    /// them more than discovery, which may be wrong for a while.
    pub fn with_healthy_of(self, previous: &Members) -> Self {
        let gone: Vec<_> = previous
            .all
            .iter()
            .filter(|member| {
                self.at(member.endpoint.address).is_none()
                    && member.endpoint.state.health.is_passed()
            })
            .collect();
        if gone.is_empty() {
            return self;
        }
        let Members {
            mut all,
            mut places,
            policy,
            ..
        } = self;
        for member in gone {
            let before = &previous.places[member.place];
            let same = |place: &Place| {
                place.priority == before.priority && place.locality == before.locality
            };
            let place = places.iter().position(same).unwrap_or_else(|| {
                places.push(before.clone());
                places.len() - 1
            });
            all.push(Member {
                place,
                ..member.clone()
            });
        }
        Members::new(all, places, policy)
    }
}
