//! From what discovery says to endpoints, each with what lived on its address before.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::{Endpoint, EndpointTransport, TlsTransport};
use super::priority::{Member, Priorities};
use super::slot::Slot;
use crate::config::cluster::{ClusterConfig, Transport, TransportMatch, UpstreamTls};
use crate::config::endpoints::{EndpointAddress, EndpointConfig, EndpointsConfig, LocalityConfig};

/// The transports of a cluster; those that have not changed are its predecessor's.
#[derive(Debug)]
pub struct Transports {
    matches: Vec<(TransportMatch, EndpointTransport)>,
    fallback: EndpointTransport,
}

impl Transports {
    /// Those of a configuration.
    pub fn new(config: &ClusterConfig, previous: Option<&Transports>) -> Self {
        let matches = config
            .transport_matches
            .iter()
            .map(|each| (each.clone(), transport(&each.transport, previous)))
            .collect();
        Transports {
            matches,
            fallback: transport(&config.transport, previous),
        }
    }

    /// Where nothing matches.
    pub fn fallback(&self) -> EndpointTransport {
        self.fallback.clone()
    }

    /// Whether all of it is the same, connections included.
    pub fn is_same(&self, other: &Transports) -> bool {
        self.matches.len() == other.matches.len()
            && self
                .all()
                .zip(other.all())
                .all(|(one, other)| one.is_same(other))
    }

    fn of(&self, endpoint: &EndpointConfig) -> EndpointTransport {
        let has_all = |wanted: &TransportMatch| {
            wanted
                .labels
                .iter()
                .all(|(name, value)| endpoint.transport_labels.get(name) == Some(value))
        };
        self.matches
            .iter()
            .find(|(wanted, _)| has_all(wanted))
            .map_or_else(|| self.fallback(), |(_, transport)| transport.clone())
    }

    fn all(&self) -> impl Iterator<Item = &EndpointTransport> {
        self.matches
            .iter()
            .map(|(_, transport)| transport)
            .chain([&self.fallback])
    }

    fn tls(&self, config: &UpstreamTls) -> Option<EndpointTransport> {
        self.all()
            .find(|each| matches!(each, EndpointTransport::Tls(tls) if *tls.config == *config))
            .cloned()
    }
}

fn transport(config: &Transport, previous: Option<&Transports>) -> EndpointTransport {
    match config {
        Transport::Plaintext => EndpointTransport::Plaintext,
        Transport::Tls(config) => previous
            .and_then(|previous| previous.tls(config))
            .unwrap_or_else(|| {
                EndpointTransport::Tls(Arc::new(TlsTransport {
                    config: Arc::clone(config),
                    built: Slot::default(),
                }))
            }),
    }
}

/// The endpoints that discovery names, by priority. Names that are not resolved yet are left out.
pub fn endpoints(
    discovered: Option<&EndpointsConfig>,
    cluster: &ClusterConfig,
    transports: &Transports,
    previous: Option<&Priorities>,
) -> Priorities {
    let Some(discovered) = discovered else {
        return Priorities::default();
    };
    let previous: HashMap<SocketAddr, &Arc<Endpoint>> = previous
        .into_iter()
        .flat_map(Priorities::endpoints)
        .map(|endpoint| (endpoint.address, endpoint))
        .collect();
    let members = discovered
        .localities
        .iter()
        .flat_map(|locality| members(locality, transports, &previous))
        .collect();
    Priorities::new(members, cluster.outlier_detection.is_some())
}

fn members(
    config: &LocalityConfig,
    transports: &Transports,
    previous: &HashMap<SocketAddr, &Arc<Endpoint>>,
) -> Vec<Member> {
    let locality = Arc::new(config.locality.clone());
    let sum: u64 = config
        .endpoints
        .iter()
        .map(|each| u64::from(each.weight.max(1)))
        .sum();
    let scaled = |weight: u32| match config.weight {
        0 => u64::from(weight),
        // The locality's share, divided by the endpoints' weights; scaled so that it stays a whole number.
        share => (u64::from(share) << 20) * u64::from(weight) / sum.max(1),
    };
    config
        .endpoints
        .iter()
        .filter_map(|each| {
            let EndpointAddress::Socket(address) = each.address else {
                return None;
            };
            let before = previous.get(&address).copied();
            let transport = transports.of(each);
            let connections = before
                .filter(|before| before.transport.is_same(&transport))
                .map_or_else(Arc::default, |before| Arc::clone(&before.connections));
            let weight = each.weight.max(1);
            let endpoint = Endpoint {
                address,
                hostname: each.hostname.clone(),
                weight,
                health: each.health,
                workload: Arc::clone(&each.workload),
                locality: Arc::clone(&locality),
                transport,
                state: before.map_or_else(Arc::default, |before| Arc::clone(&before.state)),
                connections,
            };
            Some(Member {
                priority: config.priority,
                weight: scaled(weight).max(1),
                endpoint: Arc::new(endpoint),
            })
        })
        .collect()
}
