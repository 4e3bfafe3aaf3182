//! Endpoints that are given by name: every address the name leads to is one.
//!
//! A name that cannot be resolved keeps the addresses it had: DNS being away is no reason to stop.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Upstreams;
use super::host_network::{HostNetwork, OwnNetwork};
use crate::config::cluster::ClusterConfig;
use crate::config::endpoints::{EndpointAddress, EndpointConfig, EndpointsConfig, LocalityConfig};
use crate::config::{Configuration, Network};
use crate::snapshot::Resolved;

/// Names are looked up again no more often than this.
const MIN_TTL: Duration = Duration::from_secs(5);
/// And no less often, while there are any.
const MAX_TTL: Duration = Duration::from_secs(300);

impl Upstreams {
    /// Looks up the names of all clusters; says how long the answers hold. `None`: there are no names.
    pub async fn resolve(
        &self,
        configuration: &Configuration,
        previous: &Resolved,
    ) -> Option<(Resolved, Duration)> {
        let mut resolved = Resolved::new();
        let mut shortest = None;
        for (name, cluster) in &configuration.clusters {
            let Some(config) = cluster.discovery.names() else {
                continue;
            };
            let before = previous.get(name);
            let (endpoints, ttl) = self.resolve_cluster(cluster, config, before).await;
            resolved.insert(Arc::clone(name), Arc::new(endpoints));
            shortest = Some(shortest.map_or(ttl, |shortest: Duration| shortest.min(ttl)));
        }
        shortest.map(|ttl| (resolved, ttl.clamp(MIN_TTL, MAX_TTL)))
    }

    async fn resolve_cluster(
        &self,
        cluster: &ClusterConfig,
        config: &EndpointsConfig,
        previous: Option<&Arc<EndpointsConfig>>,
    ) -> (EndpointsConfig, Duration) {
        let mut shortest = MAX_TTL;
        let mut localities = vec![];
        for (index, locality) in config.localities.iter().enumerate() {
            let mut endpoints = vec![];
            for endpoint in &locality.endpoints {
                let EndpointAddress::Name { host, port } = &endpoint.address else {
                    endpoints.push(endpoint.clone());
                    continue;
                };
                match self.lookup(cluster.network, host).await {
                    Ok((addresses, ttl)) => {
                        shortest = shortest.min(ttl);
                        endpoints.extend(at_each(endpoint, host, &addresses, *port));
                    }
                    Err(error) => {
                        shortest = MIN_TTL;
                        tracing::warn!(cluster = %cluster.name, %host, %error, "name not resolved");
                        endpoints.extend(kept(previous, index));
                    }
                }
            }
            localities.push(LocalityConfig {
                endpoints,
                ..locality.clone()
            });
        }
        let resolved = EndpointsConfig {
            name: Arc::clone(&config.name),
            localities,
            policy: config.policy.clone(),
        };
        (resolved, shortest)
    }

    async fn lookup(
        &self,
        network: Network,
        host: &str,
    ) -> std::io::Result<(Vec<IpAddr>, Duration)> {
        match network {
            Network::Sandbox => OwnNetwork.resolve(host).await,
            Network::Host => self.host_network.resolve(host).await,
        }
    }
}

fn at_each(
    endpoint: &EndpointConfig,
    host: &Arc<str>,
    addresses: &[IpAddr],
    port: u16,
) -> impl Iterator<Item = EndpointConfig> {
    let mut addresses = addresses.to_vec();
    // In one order, so that an answer in another order is no change.
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(move |address| EndpointConfig {
        address: EndpointAddress::Socket(SocketAddr::new(address, port)),
        hostname: endpoint.hostname.clone().or(Some(Arc::clone(host))),
        ..endpoint.clone()
    })
}

fn kept(previous: Option<&Arc<EndpointsConfig>>, locality: usize) -> Vec<EndpointConfig> {
    previous
        .and_then(|previous| previous.localities.get(locality))
        .map(|locality| locality.endpoints.clone())
        .unwrap_or_default()
}
