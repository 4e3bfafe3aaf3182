//! Where a bootstrap says that the control plane is.

use std::net::SocketAddr;
use std::path::PathBuf;

use weft_proto::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::core::v3::api_config_source::ApiType;
use weft_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_proto::envoy::config::core::v3::grpc_service::TargetSpecifier;
use weft_proto::envoy::config::core::v3::{
    ApiConfigSource, ConfigSource, SocketAddress, address, socket_address,
};
use weft_proto::envoy::config::endpoint::v3::LbEndpoint;
use weft_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;

use super::{Problem, problem};
use crate::xds::dialogue::Variant;
use crate::xds::transport::{ControlPlane, Target};

/// The cluster of the ADS stream.
pub(super) fn ads_cluster(dynamic: &DynamicResources) -> Option<&str> {
    let services = &dynamic.ads_config.as_ref()?.grpc_services;
    let Some(TargetSpecifier::EnvoyGrpc(grpc)) = &services.first()?.target_specifier else {
        return None;
    };
    Some(&grpc.cluster_name)
}

pub(super) fn control_plane(
    dynamic: &DynamicResources,
    clusters: &[Cluster],
) -> Result<Option<ControlPlane>, Problem> {
    let DynamicResources {
        lds_config,
        cds_config,
        ads_config,
        lds_resources_locator,
        cds_resources_locator,
    } = dynamic;
    const FIELD: &str = "dynamic_resources";
    if !lds_resources_locator.is_empty() || !cds_resources_locator.is_empty() {
        return Err(problem(
            format!("{FIELD}.lds_resources_locator"),
            "not supported",
        ));
    }
    let Some(ads) = ads_config else {
        return match lds_config.is_some() || cds_config.is_some() {
            true => Err(problem(
                format!("{FIELD}.ads_config"),
                "missing: only ADS is spoken",
            )),
            false => Ok(None),
        };
    };
    only_ads("dynamic_resources.lds_config", lds_config.as_ref())?;
    only_ads("dynamic_resources.cds_config", cds_config.as_ref())?;
    let variant = variant(ads)?;
    let name = ads_cluster(dynamic).ok_or_else(|| {
        problem(
            format!("{FIELD}.ads_config.grpc_services"),
            "must name an `envoy_grpc` cluster",
        )
    })?;
    let index = clusters
        .iter()
        .position(|cluster| cluster.name == name)
        .ok_or_else(|| {
            problem(
                format!("{FIELD}.ads_config.grpc_services[0].envoy_grpc.cluster_name"),
                format!("no static cluster is called {name:?}"),
            )
        })?;
    let targets = targets(
        &clusters[index],
        &format!("static_resources.clusters[{index}]"),
    )?;
    Ok(Some(ControlPlane { targets, variant }))
}

/// Listeners and clusters come on the ADS stream. Another source would be one that nobody asks.
fn only_ads(field: &str, source: Option<&ConfigSource>) -> Result<(), Problem> {
    match source.map(|source| &source.config_source_specifier) {
        None | Some(Some(ConfigSourceSpecifier::Ads(_))) => Ok(()),
        Some(_) => Err(problem(field, "must be `ads: {}`: only ADS is spoken")),
    }
}

fn variant(ads: &ApiConfigSource) -> Result<Variant, Problem> {
    let field = "dynamic_resources.ads_config.api_type";
    match ApiType::try_from(ads.api_type) {
        Ok(ApiType::DeltaGrpc) => Ok(Variant::Delta),
        Ok(ApiType::Grpc) => Ok(Variant::StateOfTheWorld),
        _ => Err(problem(field, "must be DELTA_GRPC or GRPC")),
    }
}

/// The endpoints of the control plane's cluster, by priority.
fn targets(cluster: &Cluster, field: &str) -> Result<Vec<Target>, Problem> {
    if cluster.transport_socket.is_some() {
        return Err(problem(
            format!("{field}.transport_socket"),
            "TLS to the control plane is not supported",
        ));
    }
    let field = format!("{field}.load_assignment");
    let assignment = cluster.load_assignment.iter();
    let mut found = vec![];
    for (index, locality) in assignment.flat_map(|all| &all.endpoints).enumerate() {
        for (number, endpoint) in locality.lb_endpoints.iter().enumerate() {
            let field = format!("{field}.endpoints[{index}].lb_endpoints[{number}]");
            found.push((locality.priority, target(endpoint, &field)?));
        }
    }
    if found.is_empty() {
        return Err(problem(field, "must have an endpoint, has none"));
    }
    // Stable: endpoints of one priority stay in their order.
    found.sort_by_key(|(priority, _)| *priority);
    Ok(found.into_iter().map(|(_, target)| target).collect())
}

fn target(endpoint: &LbEndpoint, field: &str) -> Result<Target, Problem> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
        return Err(problem(field, "the endpoint has no address"));
    };
    match endpoint
        .address
        .as_ref()
        .and_then(|address| address.address.as_ref())
    {
        Some(address::Address::Pipe(pipe)) => Ok(Target::Socket(PathBuf::from(&pipe.path))),
        Some(address::Address::SocketAddress(socket)) => socket_target(socket)
            .map(Target::Address)
            .ok_or_else(|| problem(field, "the endpoint must have an IP address and a port")),
        _ => Err(problem(
            field,
            "the endpoint must have a pipe or a socket address",
        )),
    }
}

pub(super) fn socket_target(socket: &SocketAddress) -> Option<SocketAddr> {
    let ip = socket.address.parse().ok()?;
    match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => {
            Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
        }
        _ => None,
    }
}
