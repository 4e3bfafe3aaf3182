//! Why a step of a pod's launch failed. Ends up in the pod's status, so each says what to do where that is known.

use std::time::Duration;

use tonic::Code;

use crate::api::ApiError;
use crate::broker::PublishError;
use crate::inject::InjectError;

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{doing}: {}", status.message())]
    Node {
        doing: String,
        status: Box<tonic::Status>,
    },
    #[error("{doing}: the node did not answer in {} s", deadline.as_secs())]
    NodeSilent { doing: String, deadline: Duration },
    #[error("{doing}: {source}")]
    Api {
        doing: &'static str,
        source: ApiError,
    },
    #[error(transparent)]
    Inject(#[from] InjectError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("{0}")]
    Spec(String),
    #[error(
        "the image {image} is not in the store: `weft image import` or `weft build` brings it there"
    )]
    NoImage { image: String },
    #[error("the sidecar was not ready within {} s: {last}", deadline.as_secs())]
    SidecarNotReady { deadline: Duration, last: String },
    #[error("container {container} ended with {exit_code}: {reason}")]
    ContainerEnded {
        container: String,
        exit_code: i32,
        reason: String,
    },
    #[error("container {container} is gone")]
    ContainerGone { container: String },
    #[error("waiting for {what} took longer than {} min", deadline.as_secs() / 60)]
    Dependency { what: String, deadline: Duration },
    #[error("making a folder for the volume {volume}: {source}")]
    Scratch {
        volume: String,
        source: std::io::Error,
    },
}

impl Failure {
    /// One word for the pod's status.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Node { .. } => "RuntimeError",
            Self::NodeSilent { .. } => "RuntimeUnreachable",
            Self::Api { .. } => "ApiError",
            Self::Inject(_) => "InjectionRefused",
            Self::Publish(_) => "PortUnavailable",
            Self::Spec(_) => "InvalidSpec",
            Self::NoImage { .. } => "ErrImageNeverPull",
            Self::SidecarNotReady { .. } => "SidecarNotReady",
            Self::ContainerEnded { .. } => "ContainerEnded",
            Self::ContainerGone { .. } => "ContainerGone",
            Self::Dependency { .. } => "DependencyNotReady",
            Self::Scratch { .. } => "VolumeError",
        }
    }

    /// Whether the node is away, so that nothing can be undone and nothing needs to be.
    pub(super) fn is_node_away(&self) -> bool {
        match self {
            Self::Node { status, .. } => status.code() == Code::Unavailable,
            Self::NodeSilent { .. } => true,
            _ => false,
        }
    }
}
