//! Where a bootstrap says that its configuration comes from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use weft_proto::envoy::config::core::v3::{
    ConfigSource, SocketAddress, TransportSocket, address, socket_address,
};
use weft_proto::envoy::config::endpoint::v3::LbEndpoint;
use weft_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;

use super::{Problem, problem, warn_of, within};
use crate::config::cluster::Transport;
use crate::config::tls::UpstreamTls;
use crate::xds::discovery::Discovery;
use crate::xds::kind::Kind;
use crate::xds::secrets::{self, Secrets};
use crate::xds::translate::control_plane::{
    DiscoveryService, Source, discovery_service, source, transport,
};
use crate::xds::transport::{ControlPlane, Target};

/// What the control planes of a bootstrap are found with.
pub(super) struct Known<'a> {
    pub(super) clusters: &'a [Cluster],
    pub(super) secrets: &'a Secrets,
}

/// All sources that a bootstrap names, and the cluster of the aggregated stream.
pub(super) fn discovery(
    dynamic: &DynamicResources,
    known: &Known<'_>,
) -> Result<(Discovery, Option<String>), Problem> {
    let DynamicResources {
        lds_config,
        cds_config,
        ads_config,
        lds_resources_locator,
        cds_resources_locator,
    } = dynamic;
    const FIELD: &str = "dynamic_resources";
    for (name, locator) in [
        ("lds_resources_locator", lds_resources_locator),
        ("cds_resources_locator", cds_resources_locator),
    ] {
        if !locator.is_empty() {
            return Err(problem(format!("{FIELD}.{name}"), "not supported"));
        }
    }
    let mut discovery = Discovery::default();
    let mut cluster = None;
    if let Some(wire) = ads_config {
        let field = format!("{FIELD}.ads_config");
        let (service, notes) =
            discovery_service(wire).map_err(|invalid| within(&field, &invalid))?;
        warn_of(&field, notes);
        cluster = Some(service.target.cluster.to_string());
        discovery.ads = Some(known.control_plane(service, &field)?);
        // They are asked for even where the bootstrap does not say from where.
        discovery
            .awaited
            .extend([(Kind::Cluster, None), (Kind::Listener, None)]);
    }
    for (kind, name, config) in [
        (Kind::Listener, "lds_config", lds_config),
        (Kind::Cluster, "cds_config", cds_config),
    ] {
        if let Some(config) = config {
            add(
                &mut discovery,
                kind,
                config,
                &format!("{FIELD}.{name}"),
                known,
            )?;
        }
    }
    Ok((discovery, cluster))
}

fn add(
    discovery: &mut Discovery,
    kind: Kind,
    config: &ConfigSource,
    field: &str,
    known: &Known<'_>,
) -> Result<(), Problem> {
    let ((source, limit), notes) = source(config).map_err(|invalid| within(field, &invalid))?;
    warn_of(field, notes);
    match source {
        Source::Aggregated if discovery.ads.is_none() => {
            return Err(problem(
                "dynamic_resources.ads_config",
                format!("missing: {field} is `ads`"),
            ));
        }
        Source::Aggregated => {}
        Source::Service(service) => {
            let field = format!("{field}.api_config_source");
            let service = known.control_plane(service, &field)?;
            discovery.services.push((kind, service));
        }
        Source::File(file) => discovery.files.push((kind, file)),
    }
    let limit: Option<Duration> = limit;
    discovery.awaited.insert(kind, limit);
    Ok(())
}

impl Known<'_> {
    /// Where a service is, and how it is spoken with; its cluster is one of the bootstrap's own.
    fn control_plane(
        &self,
        service: DiscoveryService,
        field: &str,
    ) -> Result<ControlPlane, Problem> {
        let DiscoveryService { target, variant } = service;
        let mut all = self.clusters.iter().enumerate();
        let found = all.find(|(_, cluster)| cluster.name == *target.cluster);
        let (index, cluster) = found.ok_or_else(|| {
            problem(
                format!("{field}.grpc_services[0].envoy_grpc.cluster_name"),
                format!("no static cluster is called {:?}", &*target.cluster),
            )
        })?;
        let field = format!("static_resources.clusters[{index}]");
        let tls = match &cluster.transport_socket {
            Some(wire) => self.tls(wire, &format!("{field}.transport_socket"))?,
            None => None,
        };
        Ok(ControlPlane {
            targets: targets(cluster, &field)?,
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

    /// TLS towards a control plane. It cannot take what only a control plane could send.
    fn tls(
        &self,
        wire: &TransportSocket,
        field: &str,
    ) -> Result<Option<Arc<UpstreamTls>>, Problem> {
        let (transport, notes) = transport(wire).map_err(|invalid| within(field, &invalid))?;
        warn_of(field, notes);
        let Transport::Tls(tls) = transport else {
            return Ok(None);
        };
        let tls = secrets::filled_upstream(&tls, self.secrets);
        if tls.needs_identity() {
            return Err(problem(
                field,
                "the workload's identity is signed by the control plane: name certificates of your own",
            ));
        }
        match secrets::missing(&tls) {
            None => Ok(Some(Arc::new(tls))),
            Some(name) => Err(problem(
                field,
                format!(
                    "the secret {name:?} is not in static_resources.secrets, or is of another type"
                ),
            )),
        }
    }
}

/// The endpoints of the control plane's cluster, by priority.
fn targets(cluster: &Cluster, field: &str) -> Result<Vec<Target>, Problem> {
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
            return Err(problem(
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
        return Err(problem(field, "must have an endpoint, has none"));
    }
    // Stable: endpoints of one priority stay in their order.
    found.sort_by_key(|(priority, _)| *priority);
    Ok(found.into_iter().map(|(_, target)| target).collect())
}

fn target(endpoint: &LbEndpoint, may_be_name: bool, field: &str) -> Result<Target, Problem> {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else {
        return Err(problem(field, "the endpoint has no address"));
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
                    problem(
                        field,
                        "the endpoint must have a port and an IP address, or a name where the cluster is STRICT_DNS",
                    )
                })
        }
        _ => Err(problem(
            field,
            "the endpoint must have a pipe or a socket address",
        )),
    }
}

pub(super) fn socket_target(socket: &SocketAddress) -> Option<SocketAddr> {
    let ip = socket.address.parse().ok()?;
    Some(SocketAddr::new(ip, port(socket)?))
}

fn port(socket: &SocketAddress) -> Option<u16> {
    match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).ok(),
        _ => None,
    }
}
