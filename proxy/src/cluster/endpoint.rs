//! An endpoint: where it is, what it is called, and what lives on it.
//!
//! The fixed part is replaced when discovery says something new; the live part (`EndpointState`, and the
//! connections while they are made the same way) stays with the address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use super::health::ActiveHealth;
use super::latency::Latency;
use super::outlier::{Outlier, millis};
use super::slot::Slot;
use crate::config::Workload;
use crate::config::balancing::Labels;
use crate::config::endpoints::{EndpointHealth, EndpointHealthCheck, Locality};
use crate::config::tls::UpstreamTls;

/// One endpoint of a cluster.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is dialled.
    pub address: SocketAddr,
    /// The name it was configured by, where it was one.
    pub hostname: Option<Arc<str>>,
    /// Its share within its locality; at least 1.
    pub weight: u32,
    /// What discovery knows about it.
    pub health: EndpointHealth,
    /// What it is called.
    pub workload: Arc<Workload>,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// What it is told apart by.
    pub labels: Arc<Labels>,
    /// What is particular about its health checks.
    pub health_check: EndpointHealthCheck,
    /// What connections to it are made of.
    pub transport: EndpointTransport,
    /// What lives as long as its address is an endpoint.
    pub state: Arc<EndpointState>,
    /// The connections to it: `upstream` keeps its pool here.
    pub connections: Arc<Slot>,
}

/// What an endpoint may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// For everything.
    Healthy,
    /// Where healthy ones are not enough.
    Degraded,
    /// Where too few are left to choose.
    Unhealthy,
    /// For what it has already.
    Draining,
}

impl Endpoint {
    /// At an address, and otherwise nothing particular.
    pub fn at(address: SocketAddr, transport: EndpointTransport) -> Self {
        Endpoint {
            address,
            hostname: None,
            weight: 1,
            health: EndpointHealth::Healthy,
            workload: Arc::default(),
            locality: Arc::default(),
            labels: Arc::default(),
            health_check: EndpointHealthCheck::default(),
            transport,
            state: Arc::default(),
            connections: Arc::default(),
        }
    }

    /// What discovery, health checks and outlier detection together say.
    pub fn standing(&self, now: Instant) -> Standing {
        match self.health {
            EndpointHealth::Draining => return Standing::Draining,
            EndpointHealth::Unhealthy => return Standing::Unhealthy,
            EndpointHealth::Healthy | EndpointHealth::Degraded => {}
        }
        if self.state.outlier.is_ejected(now) || self.state.health.is_failed() {
            return Standing::Unhealthy;
        }
        let state = &self.state;
        let is_degraded = state.health.is_degraded() || state.outlier.is_degraded(now);
        if self.health == EndpointHealth::Degraded || is_degraded {
            return Standing::Degraded;
        }
        Standing::Healthy
    }
}

/// What connections to an endpoint are made of.
#[derive(Debug, Clone)]
pub enum EndpointTransport {
    /// Bytes in the clear.
    Plaintext,
    /// TLS.
    Tls(Arc<TlsTransport>),
}

impl EndpointTransport {
    /// Whether connections made by one may be used for the other.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (EndpointTransport::Plaintext, EndpointTransport::Plaintext) => true,
            (EndpointTransport::Tls(one), EndpointTransport::Tls(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, EndpointTransport::Tls(_))
    }
}

/// TLS towards the endpoints of a cluster.
#[derive(Debug)]
pub struct TlsTransport {
    /// As configured.
    pub config: Arc<UpstreamTls>,
    /// What `tls` makes of it.
    pub built: Slot,
}

/// The live part of an endpoint.
#[derive(Debug)]
pub struct EndpointState {
    active: AtomicU32,
    /// Connections, made and being made.
    pub(super) connections: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    /// On the scale of [`millis`].
    warm_since: AtomicU64,
    /// Failures in a row and ejections.
    pub outlier: Outlier,
    /// What active health checks say.
    pub health: ActiveHealth,
    /// How long it is likely to take.
    pub latency: Latency,
}

impl Default for EndpointState {
    fn default() -> Self {
        EndpointState {
            active: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            warm_since: AtomicU64::new(millis(Instant::now())),
            outlier: Outlier::default(),
            health: ActiveHealth::default(),
            latency: Latency::default(),
        }
    }
}

impl EndpointState {
    /// Since when it is in use: its slow start is counted from then. On the scale of [`millis`].
    pub fn warm_since(&self) -> u64 {
        self.warm_since.load(Ordering::Relaxed)
    }

    /// Its slow start begins anew.
    pub fn warm_from(&self, now: Instant) {
        self.warm_since.store(millis(now), Ordering::Relaxed);
    }

    /// Requests and connections in flight.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Connections, made and being made.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests ever.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Of those, the ones that failed or were answered by a server error.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Counts a failure.
    pub fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request in; counted out when dropped.
    pub fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }
}

/// A request or connection in flight.
#[derive(Debug)]
pub struct Active(Arc<EndpointState>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
