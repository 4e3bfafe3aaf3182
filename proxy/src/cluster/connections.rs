//! Connections to endpoints, counted: against the limit of their cluster, and against each endpoint's own.
//!
//! `upstream` and `tcp` ask before they dial, and hold the permit as long as the connection is open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Cluster;
use super::breaker::{Gauge, Overflow, Permit};
use super::endpoint::{Endpoint, EndpointState};
use super::stats::ClusterStats;

/// What a connection is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Requests, of which those that find the limit reached wait for a connection to become free. Where the
    /// endpoint has none at all they would wait in vain: one is made whatever the limit says, as in Envoy.
    Waiting,
    /// Requests, none of which could be sent otherwise.
    First,
    /// One downstream connection alone.
    Opaque,
}

/// A connection among those of its endpoint and cluster; counted out when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    // First the endpoint, then the cluster, whose permit wakes those who wait.
    _of_endpoint: OfEndpoint,
    _of_cluster: Permit,
}

#[derive(Debug)]
struct OfEndpoint {
    state: Arc<EndpointState>,
    stats: Arc<ClusterStats>,
}

impl Drop for OfEndpoint {
    fn drop(&mut self) {
        self.state.connections.fetch_sub(1, Ordering::AcqRel);
        ClusterStats::count(&self.stats.connections_ended);
    }
}

impl Cluster {
    /// Counts one more connection to an endpoint in, or refuses it.
    pub fn admit_connection(
        &self,
        endpoint: &Endpoint,
        need: Need,
    ) -> Result<ConnectionPermit, Overflow> {
        let limit = self.config.max_connections_per_endpoint;
        let open = endpoint.state.connections.fetch_add(1, Ordering::AcqRel);
        let is_needed = match need {
            Need::Waiting => open == 0,
            Need::First => true,
            Need::Opaque => false,
        };
        let admitted = match limit.is_some_and(|limit| open >= limit) && !is_needed {
            true => Err(self.breakers.refused(Gauge::Connections)),
            false => self.breakers.admit(Gauge::Connections),
        };
        let admitted = match admitted {
            Err(_) if is_needed => Ok(self.breakers.admit_beyond(Gauge::Connections)),
            admitted => admitted,
        };
        let of_cluster = admitted.inspect_err(|_| {
            endpoint.state.connections.fetch_sub(1, Ordering::AcqRel);
        })?;
        ClusterStats::count(&self.stats.connections_begun);
        Ok(ConnectionPermit {
            _of_endpoint: OfEndpoint {
                state: Arc::clone(&endpoint.state),
                stats: Arc::clone(&self.stats),
            },
            _of_cluster: of_cluster,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::endpoint::EndpointTransport;
    use crate::config::cluster::{ClusterConfig, Discovery, Thresholds};

    fn endpoint(port: u16) -> Endpoint {
        Endpoint::at(([127, 0, 0, 1], port).into(), EndpointTransport::Plaintext)
    }

    fn cluster(of_all: u32, of_each: Option<u32>) -> Cluster {
        let config = ClusterConfig {
            breakers: Thresholds {
                max_connections: of_all,
                ..Thresholds::default()
            },
            max_connections_per_endpoint: of_each,
            ..ClusterConfig::new("reviews", Discovery::OriginalDestination)
        };
        Cluster::new(Arc::new(config), None, None)
    }

    #[test]
    fn an_endpoint_has_no_more_connections_than_its_own_limit() {
        let (cluster, one, other) = (cluster(10, Some(2)), endpoint(1), endpoint(2));
        let first = cluster.admit_connection(&one, Need::Waiting);
        let _second = cluster.admit_connection(&one, Need::Waiting);

        assert!(cluster.admit_connection(&one, Need::Waiting).is_err());
        assert!(cluster.admit_connection(&other, Need::Waiting).is_ok());
        assert_eq!(cluster.breakers.counts().overflows(Gauge::Connections), 1);
        drop(first);
        assert!(cluster.admit_connection(&one, Need::Waiting).is_ok());
    }

    #[test]
    fn an_endpoint_without_connections_gets_one_whatever_others_have() {
        let (cluster, one, other) = (cluster(1, None), endpoint(1), endpoint(2));
        let _held = cluster.admit_connection(&one, Need::Waiting);

        let _first = cluster.admit_connection(&other, Need::Waiting);

        assert_eq!(cluster.breakers.counts().current(Gauge::Connections), 2);
        assert!(cluster.admit_connection(&other, Need::Waiting).is_err());
        assert!(cluster.admit_connection(&other, Need::First).is_ok());
    }

    #[test]
    fn opaque_connections_are_never_more_than_the_limit() {
        let cluster = cluster(0, None);

        assert!(
            cluster
                .admit_connection(&endpoint(1), Need::Opaque)
                .is_err()
        );
        assert_eq!(cluster.breakers.counts().current(Gauge::Connections), 0);
    }
}
