//! The messages of the two protocols.

use weft_proto::envoy::config::core::v3 as core;
use weft_proto::envoy::service::discovery::v3 as wire;

use crate::xds::session::{Abuse, Feedback, Protocol, Push, Session};

/// How the server calls itself.
const IDENTIFIER: &str = concat!("weft/", env!("CARGO_PKG_VERSION"));

/// One of the two protocols, as messages.
pub(in crate::xds) trait Transport: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const PROTOCOL: Protocol;

    fn node(request: &Self::Request) -> Option<&core::Node>;
    fn take_in(session: &mut Session, request: &Self::Request) -> Result<Feedback, Abuse>;
    fn encode(push: &Push) -> Self::Response;
}

/// The incremental protocol.
pub(in crate::xds) struct Delta;

/// The older protocol.
pub(in crate::xds) struct StateOfTheWorld;

impl Transport for Delta {
    type Request = wire::DeltaDiscoveryRequest;
    type Response = wire::DeltaDiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::Delta;

    fn node(request: &Self::Request) -> Option<&core::Node> {
        request.node.as_ref()
    }

    fn take_in(session: &mut Session, request: &Self::Request) -> Result<Feedback, Abuse> {
        session.on_delta(request)
    }

    fn encode(push: &Push) -> Self::Response {
        let resources = push.resources.iter().map(|resource| wire::Resource {
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            resource: Some(resource.body.clone()),
            ..wire::Resource::default()
        });
        wire::DeltaDiscoveryResponse {
            system_version_info: push.revision.to_string(),
            resources: resources.collect(),
            type_url: push.kind.type_url().to_owned(),
            nonce: push.nonce.clone(),
            removed_resources: push.removed.iter().map(|name| name.to_string()).collect(),
            control_plane: Some(control_plane()),
            ..wire::DeltaDiscoveryResponse::default()
        }
    }
}

impl Transport for StateOfTheWorld {
    type Request = wire::DiscoveryRequest;
    type Response = wire::DiscoveryResponse;
    const PROTOCOL: Protocol = Protocol::StateOfTheWorld;

    fn node(request: &Self::Request) -> Option<&core::Node> {
        request.node.as_ref()
    }

    fn take_in(session: &mut Session, request: &Self::Request) -> Result<Feedback, Abuse> {
        session.on_state_of_the_world(request)
    }

    fn encode(push: &Push) -> Self::Response {
        wire::DiscoveryResponse {
            version_info: push.revision.to_string(),
            resources: push
                .resources
                .iter()
                .map(|resource| resource.body.clone())
                .collect(),
            type_url: push.kind.type_url().to_owned(),
            nonce: push.nonce.clone(),
            control_plane: Some(control_plane()),
            ..wire::DiscoveryResponse::default()
        }
    }
}

fn control_plane() -> core::ControlPlane {
    core::ControlPlane {
        identifier: IDENTIFIER.to_owned(),
    }
}
