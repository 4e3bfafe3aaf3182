//! EDS: endpoints of a cluster.

use std::sync::Arc;

use weft_proto::envoy::config::core::v3::{HealthStatus, Locality as WireLocality};
use weft_proto::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use weft_proto::envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload;
use weft_proto::envoy::config::endpoint::v3::endpoint::HealthCheckConfig;
use weft_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::address::{host_and_port, socket_address};
use super::at::{At, Invalid, enumeration, harmless, nonempty, required, unsupported};
use super::metadata::{transport_labels, workload};
use super::share::fraction;
use super::subsets::labels;
use crate::config::endpoints::{
    EndpointAddress, EndpointConfig, EndpointHealth, EndpointHealthCheck, EndpointsConfig,
    HealthPolicy, Locality, LocalityConfig,
};

/// Whether endpoints may be names, which somebody resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosts {
    /// Only addresses.
    Addresses,
    /// Names, too.
    Names,
}

/// All endpoints of a cluster.
pub(super) fn endpoints(
    at: &At<'_>,
    wire: &ClusterLoadAssignment,
    hosts: Hosts,
) -> Result<EndpointsConfig, Invalid> {
    let ClusterLoadAssignment {
        cluster_name,
        endpoints,
        named_endpoints,
        policy: policies,
    } = wire;
    unsupported!(at; named_endpoints);
    let policy = match policies {
        Some(wire) => policy(&at.field("policy"), wire)?,
        None => HealthPolicy::default(),
    };
    let at = at.field("endpoints");
    let localities = endpoints
        .iter()
        .enumerate()
        .map(|(index, wire)| locality(&at.index(index), wire, hosts))
        .collect::<Result<_, _>>()?;
    Ok(EndpointsConfig {
        name: nonempty(&at.field("cluster_name"), cluster_name)?.into(),
        localities,
        policy,
    })
}

fn policy(at: &At<'_>, wire: &Policy) -> Result<HealthPolicy, Invalid> {
    let Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = wire;
    harmless!(at; endpoint_stale_after);
    let default = HealthPolicy::default();
    let at_factor = at.field("overprovisioning_factor");
    let overprovisioning = match overprovisioning_factor {
        Some(0) => return Err(at_factor.refuse("must be more than 0")),
        Some(factor) => *factor,
        None => default.overprovisioning,
    };
    let at_drops = at.field("drop_overloads");
    let drops = drop_overloads
        .iter()
        .enumerate()
        .map(|(index, wire)| {
            let at = at_drops.index(index);
            let DropOverload {
                category,
                drop_percentage,
            } = wire;
            let at = at.field("drop_percentage");
            let share = fraction(&at, required(&at, drop_percentage.as_ref())?)?;
            Ok((category.as_str().into(), share))
        })
        .collect::<Result<_, _>>()?;
    Ok(HealthPolicy {
        overprovisioning,
        is_weighted: *weighted_priority_health,
        drops,
    })
}

fn locality(
    at: &At<'_>,
    wire: &LocalityLbEndpoints,
    hosts: Hosts,
) -> Result<LocalityConfig, Invalid> {
    let LocalityLbEndpoints {
        locality,
        metadata: _,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = wire;
    unsupported!(at; lb_config);
    harmless!(at; proximity);
    let at = at.field("lb_endpoints");
    Ok(LocalityConfig {
        locality: locality.as_ref().map(place).unwrap_or_default(),
        priority: *priority,
        weight: load_balancing_weight.unwrap_or(0),
        endpoints: lb_endpoints
            .iter()
            .enumerate()
            .map(|(index, wire)| endpoint(&at.index(index), wire, hosts))
            .collect::<Result<_, _>>()?,
    })
}

fn place(wire: &WireLocality) -> Locality {
    let WireLocality {
        region,
        zone,
        sub_zone,
    } = wire;
    Locality {
        region: region.as_str().into(),
        zone: zone.as_str().into(),
        sub_zone: sub_zone.as_str().into(),
    }
}

fn endpoint(at: &At<'_>, wire: &LbEndpoint, hosts: Hosts) -> Result<EndpointConfig, Invalid> {
    let LbEndpoint {
        health_status,
        metadata,
        load_balancing_weight,
        host_identifier,
    } = wire;
    let (address, hostname, health_check) =
        match required(&at.field("host_identifier"), host_identifier.as_ref())? {
            HostIdentifier::Endpoint(wire) => {
                let address = endpoint_address(&at.field("endpoint"), wire, hosts)?;
                (
                    address,
                    Some(wire.hostname.as_str()).filter(|host| !host.is_empty()),
                    health_check(
                        &at.field("endpoint").field("health_check_config"),
                        wire.health_check_config.as_ref(),
                    )?,
                )
            }
            HostIdentifier::EndpointName(name) => {
                return Err(at.field("endpoint_name").refuse_value(name));
            }
        };
    let health = match enumeration(&at.field("health_status"), *health_status)? {
        HealthStatus::Unknown | HealthStatus::Healthy => EndpointHealth::Healthy,
        HealthStatus::Degraded => EndpointHealth::Degraded,
        HealthStatus::Unhealthy | HealthStatus::Timeout => EndpointHealth::Unhealthy,
        HealthStatus::Draining => EndpointHealth::Draining,
    };
    Ok(EndpointConfig {
        address,
        hostname: hostname.map(Into::into),
        weight: load_balancing_weight.unwrap_or(1).max(1),
        health,
        workload: Arc::new(workload(metadata.as_ref())),
        transport_labels: transport_labels(&at.field("metadata"), metadata.as_ref())?,
        labels: labels(metadata.as_ref()),
        health_check,
    })
}

fn health_check(
    at: &At<'_>,
    wire: Option<&HealthCheckConfig>,
) -> Result<EndpointHealthCheck, Invalid> {
    let Some(HealthCheckConfig {
        port_value,
        hostname,
        address,
        disable_active_health_check,
    }) = wire
    else {
        return Ok(EndpointHealthCheck::default());
    };
    let at_port = at.field("port_value");
    let port = u16::try_from(*port_value)
        .map_err(|_| at_port.refuse(format_args!("{port_value} is no port")))?;
    Ok(EndpointHealthCheck {
        address: address
            .as_ref()
            .map(|wire| socket_address(&at.field("address"), wire))
            .transpose()?,
        port: (port != 0).then_some(port),
        host: (!hostname.is_empty()).then(|| hostname.as_str().into()),
        is_disabled: *disable_active_health_check,
    })
}

fn endpoint_address(
    at: &At<'_>,
    wire: &Endpoint,
    hosts: Hosts,
) -> Result<EndpointAddress, Invalid> {
    let Endpoint {
        address,
        // Read by the caller.
        health_check_config: _,
        hostname: _,
        additional_addresses,
        observability_name,
    } = wire;
    harmless!(at; additional_addresses, observability_name);
    let at = at.field("address");
    let (host, port) = host_and_port(&at, required(&at, address.as_ref())?)?;
    match (host.parse(), hosts) {
        (Ok(ip), _) => Ok(EndpointAddress::Socket(std::net::SocketAddr::new(ip, port))),
        (Err(_), Hosts::Names) if !host.is_empty() => Ok(EndpointAddress::Name {
            host: host.into(),
            port,
        }),
        (Err(_), _) => {
            let at = at.field("socket_address");
            Err(at
                .field("address")
                .refuse(format_args!("{host:?} is no IP address")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value, hosts: Hosts) -> Result<EndpointsConfig, Invalid> {
        let wire: ClusterLoadAssignment = from_json(json).expect("a load assignment");
        let notes = Notes::default();
        endpoints(&At::root(&notes), &wire, hosts)
    }

    fn one(address: &str) -> serde_json::Value {
        json!({"cluster_name": "reviews", "endpoints": [{"lb_endpoints": [{
            "endpoint": {"address": {"socket_address": {"address": address, "port_value": 9080}}},
            "health_status": "DRAINING",
            "metadata": {"filter_metadata": {
                "weft.dev": {"workload": "reviews-v1", "namespace": "default"},
                "envoy.transport_socket_match": {"tlsMode": "mtls"},
            }},
        }]}]})
    }

    #[test]
    fn an_endpoint_keeps_address_health_names_and_labels() {
        let config = translated(one("10.96.0.7"), Hosts::Addresses).expect("valid");

        let endpoint = &config.localities[0].endpoints[0];
        assert_eq!(
            endpoint.address,
            EndpointAddress::Socket(([10, 96, 0, 7], 9080).into())
        );
        assert_eq!(endpoint.health, EndpointHealth::Draining);
        assert_eq!(&*endpoint.workload.name, "reviews-v1");
        assert_eq!(endpoint.transport_labels["tlsMode"], "mtls".into());
        assert_eq!(endpoint.weight, 1);
    }

    #[test]
    fn a_name_is_an_endpoint_only_where_somebody_resolves_it() {
        let named = translated(one("collector.example"), Hosts::Names).expect("valid");
        let refused = translated(one("collector.example"), Hosts::Addresses).expect_err("refused");

        assert!(matches!(
            named.localities[0].endpoints[0].address,
            EndpointAddress::Name { .. }
        ));
        assert_eq!(
            refused.to_string(),
            "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: \
             \"collector.example\" is no IP address"
        );
    }
}
