//! EDS: the pods that take requests for one port of a service.

use weft_proto::envoy::config::core::v3::Metadata;
use weft_proto::envoy::config::endpoint::v3 as endpoint;
use weft_proto::names;

use crate::kinds::peer_authentication::MutualTlsMode;
use crate::mesh::Mesh;
use crate::mesh::pods::Pod;
use crate::mesh::services::{Outbound, Port, Service};

use super::wire;

/// By what a cluster chooses the transport socket of an endpoint.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// Under it: how the endpoint is spoken to.
pub(super) const TLS_MODE: &str = "tlsMode";
/// The one value: with mutual TLS.
pub(super) const MUTUAL: &str = "mtls";

/// The endpoints of one port of a service.
pub(super) fn assignment(
    mesh: &Mesh,
    service: &Service,
    port: &Port,
) -> endpoint::ClusterLoadAssignment {
    let endpoints: Vec<_> = mesh
        .endpoints(service, port)
        .filter_map(|(pod, number)| {
            let address = wire::address_of(pod.address()?, number);
            Some(endpoint::LbEndpoint {
                host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(
                    endpoint::Endpoint {
                        address: Some(address),
                        ..endpoint::Endpoint::default()
                    },
                )),
                metadata: Some(describe(mesh, service, pod)),
                ..endpoint::LbEndpoint::default()
            })
        })
        .collect();
    let name = Outbound {
        service: &service.name,
        port: port.number,
    };
    let locality = endpoint::LocalityLbEndpoints {
        lb_endpoints: endpoints,
        ..endpoint::LocalityLbEndpoints::default()
    };
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_string(),
        endpoints: match locality.lb_endpoints.is_empty() {
            true => Vec::new(),
            false => vec![locality],
        },
        ..endpoint::ClusterLoadAssignment::default()
    }
}

fn describe(mesh: &Mesh, service: &Service, pod: &Pod) -> Metadata {
    let mut metadata = wire::metadata(
        names::METADATA,
        &[
            ("workload", pod.workload.as_str()),
            ("namespace", pod.name.namespace.as_str()),
            ("pod", pod.name.name.as_str()),
            ("service", service.name.name.as_str()),
        ],
    );
    let speaks_tls = pod.is_meshed && mesh.policies.mutual_tls(pod) != MutualTlsMode::Disable;
    if speaks_tls {
        metadata.filter_metadata.insert(
            TRANSPORT_SOCKET_MATCH.to_owned(),
            wire::text_struct(&[(TLS_MODE, MUTUAL)]),
        );
    }
    metadata
}
