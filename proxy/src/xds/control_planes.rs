//! The control planes of a bootstrap: static clusters that are asked for resources.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use weft_proto::Any;
use weft_proto::any::{pack, unpack};
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use weft_proto::envoy::config::core::v3::{
    SocketAddress, TransportSocket, address, socket_address,
};
use weft_proto::envoy::config::endpoint::v3::LbEndpoint;
use weft_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::Secret;

use super::control_plane_tls::ControlPlaneTls;
use super::translate::control_plane::DiscoveryService;
use super::transport::{ControlPlane, Target};

/// Why a cluster is not asked: a field of the bootstrap, or of the source that names the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Unusable {
    /// The field's path.
    pub field: String,
    /// What is wrong there.
    pub reason: String,
}

fn unusable(field: impl Into<String>, reason: impl Into<String>) -> Unusable {
    Unusable {
        field: field.into(),
        reason: reason.into(),
    }
}

/// What control planes are found with: the bootstrap's own clusters and secrets.
#[derive(Debug, Clone, Default)]
pub struct ControlPlanes {
    /// By name, encoded: few of them are ever asked, and each endpoint of the others would take half a kilobyte.
    clusters: Vec<(String, Any)>,
    secrets: Vec<Secret>,
}

impl ControlPlanes {
    /// Among these.
    pub fn new(clusters: &[Cluster], secrets: &[Secret]) -> Self {
        Self {
            clusters: clusters
                .iter()
                .map(|cluster| (cluster.name.clone(), pack(cluster)))
                .collect(),
            secrets: secrets.to_vec(),
        }
    }

    /// Where a service is, and how it is spoken with. `field` is where its `api_config_source` is.
    ///
    /// # Errors
    /// No static cluster has its name, or the cluster cannot be asked.
    pub fn of(&self, service: DiscoveryService, field: &str) -> Result<ControlPlane, Unusable> {
        let DiscoveryService { target, variant } = service;
        let mut all = self.clusters.iter().enumerate();
        let found = all.find(|(_, (name, _))| **name == *target.cluster);
        let (index, (_, cluster)) = found.ok_or_else(|| {
            unusable(
                format!("{field}.grpc_services[0].envoy_grpc.cluster_name"),
                format!("no static cluster is called {:?}", &*target.cluster),
            )
        })?;
        let field = format!("static_resources.clusters[{index}]");
        let cluster: Cluster =
            unpack(cluster).map_err(|error| unusable(&field, error.to_string()))?;
        let tls = match &cluster.transport_socket {
            Some(wire) => self.tls(wire, &format!("{field}.transport_socket"))?,
            None => None,
        };
        Ok(ControlPlane {
            targets: targets(&cluster, &field)?,
            variant,
            // As Envoy's: the cluster, where nothing else is said.
            authority: match target.authority.is_empty() {
                true => target.cluster,
                false => target.authority,
            },
            metadata: target.metadata,
            tls,
        })
    }

    fn tls(
        &self,
        wire: &TransportSocket,
        field: &str,
    ) -> Result<Option<Arc<ControlPlaneTls>>, Unusable> {
        let tls = ControlPlaneTls::read(wire, &self.secrets);
        let tls = tls.map_err(|error| error.within(field))?;
        Ok(tls.map(Arc::new))
    }
}

/// The endpoints of the control plane's cluster, by priority.
fn targets(cluster: &Cluster, field: &str) -> Result<Vec<Target>, Unusable> {
    let kind = match cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => {
            DiscoveryType::try_from(kind).unwrap_or(DiscoveryType::Eds)
        }
        Some(_) => DiscoveryType::Eds,
        None => DiscoveryType::Static,
    };
    let has_names = match kind {
        DiscoveryType::Static => false,
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => true,
        DiscoveryType::Eds | DiscoveryType::OriginalDst => {
            return Err(unusable(
                format!("{field}.type"),
                "a control plane's cluster must be STATIC, STRICT_DNS or LOGICAL_DNS",
            ));
        }
    };
    let field = format!("{field}.load_assignment");
    let assignment = cluster.load_assignment.iter();
    let mut found = vec![];
    for (index, locality) in assignment.flat_map(|all| &all.endpoints).enumerate() {
        for (number, endpoint) in locality.lb_endpoints.iter().enumerate() {
            let field = format!("{field}.endpoints[{index}].lb_endpoints[{number}]");
            found.push((locality.priority, target(endpoint, has_names, &field)?));
        }
    }
    if found.is_empty() {
        return Err(unusable(field, "must have an endpoint, has none"));
    }
    // Stable: endpoints of one priority stay in their order.
    found.sort_by_key(|(priority, _)| *priority);
    Ok(found.into_iter().map(|(_, target)| target).collect())
}

fn target(endpoint: &LbEndpoint, may_be_name: bool, field: &str) -> Result<Target, Unusable> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
        return Err(unusable(field, "the endpoint has no address"));
    };
    let address = endpoint.address.as_ref();
    match address.and_then(|address| address.address.as_ref()) {
        Some(address::Address::Pipe(pipe)) => Ok(Target::Socket(PathBuf::from(&pipe.path))),
        Some(address::Address::SocketAddress(socket)) => {
            let address = socket_target(socket).map(Target::Address);
            let host = || port(socket).map(|port| Target::Host(socket.address.clone(), port));
            address
                .or_else(|| may_be_name.then(host).flatten())
                .ok_or_else(|| {
                    unusable(
                        field,
                        "the endpoint must have a port and an IP address, or a name where the cluster is STRICT_DNS",
                    )
                })
        }
        _ => Err(unusable(
            field,
            "the endpoint must have a pipe or a socket address",
        )),
    }
}

/// An IP address and its port; none where there is a name.
pub fn socket_target(socket: &SocketAddress) -> Option<SocketAddr> {
    let ip = socket.address.parse().ok()?;
    Some(SocketAddr::new(ip, port(socket)?))
}

fn port(socket: &SocketAddress) -> Option<u16> {
    match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
        _ => None,
    }
}
