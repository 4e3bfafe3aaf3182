//! From what discovery says to endpoints, each with what lived on its address before.

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::{Endpoint, EndpointState, EndpointTransport, TlsTransport};
use super::members::{Member, Members, Place};
use super::slot::Slot;
use crate::config::cluster::{ClusterConfig, Transport, TransportMatch};
use crate::config::endpoints::{EndpointAddress, EndpointConfig, EndpointsConfig, Locality};
use crate::config::tls::UpstreamTls;

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

/// The endpoints that discovery names. Names that are not resolved yet are left out.
pub fn endpoints(
    discovered: Option<&EndpointsConfig>,
    cluster: &ClusterConfig,
    transports: &Transports,
    previous: Option<&Members>,
) -> Members {
    let Some(discovered) = discovered else {
        return Members::default();
    };
    let known = |address: &SocketAddr| previous.and_then(|previous| previous.at(*address));
    let is_checked = !cluster.health_checks.is_empty();
    let mut places = Vec::new();
    let mut all = Vec::new();
    for locality in &discovered.localities {
        let place = Arc::new(locality.locality.clone());
        let members = locality.endpoints.iter().filter_map(|each| {
            let endpoint = endpoint(each, &place, transports, known, is_checked)?;
            Some(Member {
                priority: locality.priority,
                place: places.len(),
                endpoint: Arc::new(endpoint),
            })
        });
        all.extend(members);
        places.push(Place {
            locality: Arc::clone(&place),
            priority: locality.priority,
            weight: locality.weight,
        });
    }
    let found = Members::new(all, places, discovered.policy.clone());
    match previous {
        Some(previous) if is_checked && !cluster.ignore_health_on_removal => {
            found.with_healthy_of(previous)
        }
        _ => found,
    }
}

fn endpoint<'a>(
    config: &EndpointConfig,
    locality: &Arc<Locality>,
    transports: &Transports,
    known: impl Fn(&SocketAddr) -> Option<&'a Arc<Endpoint>>,
    is_checked: bool,
) -> Option<Endpoint> {
    let EndpointAddress::Socket(address) = config.address else {
        return None;
    };
    let before = known(&address);
    let transport = transports.of(config);
    let connections = before
        .filter(|before| before.transport.is_same(&transport))
        .map_or_else(Arc::default, |before| Arc::clone(&before.connections));
    let state: Arc<EndpointState> =
        before.map_or_else(Arc::default, |before| Arc::clone(&before.state));
    // Until it has been asked, nobody knows.
    match is_checked && !config.health_check.is_disabled {
        true => state.health.expect_checks(),
        false => state.health.forget(),
    }
    Some(Endpoint {
        address,
        hostname: config.hostname.clone(),
        weight: config.weight.max(1),
        health: config.health,
        workload: Arc::clone(&config.workload),
        locality: Arc::clone(locality),
        labels: Arc::clone(&config.labels),
        health_check: config.health_check.clone(),
        transport,
        state,
        connections,
    })
}
