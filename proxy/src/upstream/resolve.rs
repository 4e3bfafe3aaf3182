//! Endpoints that are given by name: every address the name leads to is one.
//!
//! A name that cannot be resolved keeps the addresses it had: DNS being away is no reason to stop.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::Upstreams;
use super::host_network::{HostNetwork, OwnNetwork};
use crate::config::cluster::{ClusterConfig, Discovery, DnsFamily, DnsOptions};
use crate::config::endpoints::{EndpointAddress, EndpointConfig, EndpointsConfig, LocalityConfig};
use crate::config::{Configuration, Network};
use crate::random;
use crate::snapshot::Resolved;

/// Answers hold at least so long, whatever they say.
const MIN_TTL: Duration = Duration::from_secs(1);
/// And at most so long.
const MAX_TTL: Duration = Duration::from_secs(300);

impl Upstreams {
    /// Looks up the names of all clusters, at the same time; says how long the answers hold. `None`: there are no
    /// names.
    pub async fn resolve(
        &self,
        configuration: &Configuration,
        previous: &Resolved,
    ) -> Option<(Resolved, Duration)> {
        let lookups = configuration.clusters.iter().filter_map(|(name, cluster)| {
            let config = cluster.discovery.names()?;
            let before = previous.get(name);
            Some(async move {
                let (endpoints, wait) = self.resolve_cluster(cluster, config, before).await;
                (Arc::clone(name), Arc::new(endpoints), wait)
            })
        });
        let found = futures_util::future::join_all(lookups).await;
        let shortest = found.iter().map(|(_, _, wait)| *wait).min()?;
        let resolved = found
            .into_iter()
            .map(|(name, endpoints, _)| (name, endpoints))
            .collect();
        Some((resolved, shortest))
    }

    async fn resolve_cluster(
        &self,
        cluster: &ClusterConfig,
        config: &EndpointsConfig,
        previous: Option<&Arc<EndpointsConfig>>,
    ) -> (EndpointsConfig, Duration) {
        let dns = &cluster.dns;
        let mut wait = MAX_TTL;
        let mut localities = vec![];
        for (index, locality) in config.localities.iter().enumerate() {
            let mut endpoints = vec![];
            for endpoint in &locality.endpoints {
                let EndpointAddress::Name { host, port } = &endpoint.address else {
                    endpoints.push(endpoint.clone());
                    continue;
                };
                let looked_up = self.lookup(cluster.network, host).await;
                wait = wait.min(until_next(
                    dns,
                    looked_up.as_ref().ok().map(|(_, ttl)| *ttl),
                ));
                match looked_up {
                    Ok((addresses, _)) => {
                        let mut chosen = of_family(&addresses, dns.family);
                        if matches!(cluster.discovery, Discovery::LogicalDns(_)) {
                            chosen.truncate(1);
                        }
                        endpoints.extend(at_each(endpoint, host, &chosen, *port));
                    }
                    Err(error) => {
                        tracing::warn!(cluster = %cluster.name, %host, %error, "name not resolved");
                        endpoints.extend(kept(previous, index, host));
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
        (
            resolved,
            wait + random::with(|random| drawn(dns.jitter, random)),
        )
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

/// When a name is looked up again: after an answer that holds for so long, or none.
fn until_next(dns: &DnsOptions, ttl: Option<Duration>) -> Duration {
    match (ttl, dns.failure_refresh) {
        (Some(ttl), _) if dns.respects_ttl => ttl.clamp(MIN_TTL, MAX_TTL),
        (None, Some((base, _))) => base,
        _ => dns.refresh,
    }
}

fn drawn(longest: Duration, random: &mut impl Rng) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random::below(random, nanos))
}

/// Those of the family that is wanted, in one order, so that an answer in another order is no change.
fn of_family(addresses: &[IpAddr], family: DnsFamily) -> Vec<IpAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4());
    match family {
        DnsFamily::All => addresses,
        DnsFamily::V4 => v4,
        DnsFamily::V6 => v6,
        DnsFamily::PreferV4 if v4.is_empty() => v6,
        DnsFamily::PreferV4 => v4,
        DnsFamily::PreferV6 if v6.is_empty() => v4,
        DnsFamily::PreferV6 => v6,
    }
}

fn at_each(
    endpoint: &EndpointConfig,
    host: &Arc<str>,
    addresses: &[IpAddr],
    port: u16,
) -> impl Iterator<Item = EndpointConfig> {
    addresses.iter().map(move |address| EndpointConfig {
        address: EndpointAddress::Socket(SocketAddr::new(*address, port)),
        hostname: endpoint.hostname.clone().or(Some(Arc::clone(host))),
        ..endpoint.clone()
    })
}

/// What a name led to before: DNS being away is no reason to stop.
fn kept(
    previous: Option<&Arc<EndpointsConfig>>,
    locality: usize,
    host: &Arc<str>,
) -> Vec<EndpointConfig> {
    let endpoints = previous
        .and_then(|previous| previous.localities.get(locality))
        .map_or(&[][..], |locality| &locality.endpoints);
    let is_of_name = |endpoint: &&EndpointConfig| endpoint.hostname.as_ref() == Some(host);
    match endpoints.iter().any(|endpoint| is_of_name(&endpoint)) {
        true => endpoints.iter().filter(is_of_name).cloned().collect(),
        false => endpoints.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        let parsed = texts.iter().map(|text| text.parse().expect("an address"));
        parsed.collect()
    }

    #[test]
    fn a_family_is_preferred_and_the_other_taken_where_there_is_none() {
        let both = addresses(&["::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]);
        let only_v6 = addresses(&["::1"]);

        assert_eq!(
            of_family(&both, DnsFamily::PreferV4),
            addresses(&["10.0.0.1", "10.0.0.2"])
        );
        assert_eq!(of_family(&both, DnsFamily::PreferV6), only_v6);
        assert_eq!(of_family(&only_v6, DnsFamily::PreferV4), only_v6);
        assert!(of_family(&only_v6, DnsFamily::V4).is_empty());
        assert_eq!(of_family(&both, DnsFamily::All).len(), 3);
    }

    #[test]
    fn names_are_looked_up_again_as_configured() {
        let secs = Duration::from_secs;
        let dns = DnsOptions {
            refresh: secs(7),
            respects_ttl: false,
            failure_refresh: None,
            ..DnsOptions::default()
        };
        let by_ttl = DnsOptions {
            respects_ttl: true,
            failure_refresh: Some((secs(2), secs(20))),
            ..dns
        };

        assert_eq!(until_next(&dns, Some(secs(60))), secs(7));
        assert_eq!(until_next(&dns, None), secs(7));
        assert_eq!(until_next(&by_ttl, Some(secs(60))), secs(60));
        assert_eq!(until_next(&by_ttl, Some(secs(0))), secs(1));
        assert_eq!(until_next(&by_ttl, None), secs(2));
    }
}
