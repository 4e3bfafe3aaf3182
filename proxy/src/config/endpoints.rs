//! Endpoints of a cluster, by locality.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Workload;
use super::balancing::Labels;
use super::percent::Percent;

/// All endpoints of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndpointsConfig {
    /// The name they are discovered under.
    pub name: Arc<str>,
    /// By place.
    pub localities: Vec<LocalityConfig>,
    /// How health is turned into shares.
    pub policy: HealthPolicy,
}

/// How health is turned into shares of priorities and localities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPolicy {
    /// In percent: a priority carries all while this many times its usable share is the whole.
    pub overprovisioning: u32,
    /// Whether endpoints count by their weights.
    pub is_weighted: bool,
    /// Shares of requests that are refused, one draw after the other, with what for.
    pub drops: Vec<(Arc<str>, Percent)>,
}

impl Default for HealthPolicy {
    /// Envoy's.
    fn default() -> Self {
        HealthPolicy {
            overprovisioning: 140,
            is_weighted: false,
            drops: vec![],
        }
    }
}

/// Endpoints of one place.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityConfig {
    /// The place.
    pub locality: Locality,
    /// 0 is used first; the next where too few of it are healthy.
    pub priority: u32,
    /// Its share among those of its priority; 0 where shares are not used.
    pub weight: u32,
    /// What is there.
    pub endpoints: Vec<EndpointConfig>,
}

/// A place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Part of a zone.
    pub sub_zone: Arc<str>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// Where it is.
    pub address: EndpointAddress,
    /// The host that requests to it may be rewritten to.
    pub hostname: Option<Arc<str>>,
    /// Its share; at least 1.
    pub weight: u32,
    /// What discovery knows about it.
    pub health: EndpointHealth,
    /// What it is called.
    pub workload: Arc<Workload>,
    /// What chooses its transport (`envoy.transport_socket_match`).
    pub transport_labels: BTreeMap<Arc<str>, Arc<str>>,
    /// What it is told apart by.
    pub labels: Arc<Labels>,
    /// How it is asked whether it is well.
    pub health_check: EndpointHealthCheck,
}

/// What is particular about an endpoint's health checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointHealthCheck {
    /// Another address.
    pub address: Option<SocketAddr>,
    /// Another port.
    pub port: Option<u16>,
    /// The host of checks by HTTP and gRPC.
    pub host: Option<Arc<str>>,
    /// Whether it is not asked.
    pub is_disabled: bool,
}

impl EndpointConfig {
    /// At an address, and otherwise nothing particular.
    pub fn at(address: SocketAddr) -> Self {
        EndpointConfig {
            address: EndpointAddress::Socket(address),
            hostname: None,
            weight: 1,
            health: EndpointHealth::Healthy,
            workload: Arc::default(),
            transport_labels: BTreeMap::new(),
            labels: Arc::default(),
            health_check: EndpointHealthCheck::default(),
        }
    }
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointAddress {
    /// At this address.
    Socket(SocketAddr),
    /// Where the name leads.
    Name {
        /// A domain name.
        host: Arc<str>,
        /// A port.
        port: u16,
    },
}

/// What discovery knows about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointHealth {
    /// It may be used.
    Healthy,
    /// It is used where others are not enough.
    Degraded,
    /// It may not be used.
    Unhealthy,
    /// It goes on with what it has, and gets nothing new.
    Draining,
}
