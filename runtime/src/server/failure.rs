//! What a call is refused with: a cause of ours, and the gRPC status it becomes.

use std::io;

use tonic::Status;

use crate::image::ImageError;
use crate::network::NetworkError;
use crate::network::rules::RulesError;
use crate::node::chain;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("there is no {kind} {id}")]
    NotFound { kind: &'static str, id: String },
    #[error("{kind} {id} exists already")]
    Exists { kind: &'static str, id: String },
    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    #[error("{0}")]
    State(String),
    #[error("{doing}")]
    System { doing: String, source: io::Error },
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("a task of the node ended unexpectedly: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Failure {
    pub(super) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        let doing = doing.into();
        move |source| Failure::System { doing, source }
    }

    pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> Failure {
        Failure::Invalid {
            field,
            reason: reason.into(),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let text = chain(&failure);
        match failure {
            Failure::NotFound { .. } | Failure::Image(ImageError::NotFound { .. }) => {
                Status::not_found(text)
            }
            Failure::Exists { .. } => Status::already_exists(text),
            Failure::Invalid { .. }
            | Failure::Network(NetworkError::Rules(
                RulesError::Refused { .. } | RulesError::UnknownTable(_) | RulesError::TooLarge,
            ))
            | Failure::Image(
                ImageError::InvalidReference { .. }
                | ImageError::Ambiguous { .. }
                | ImageError::Archive { .. }
                | ImageError::DigestMismatch { .. }
                | ImageError::Entry { .. }
                | ImageError::TooLarge { .. }
                | ImageError::Dockerfile { .. },
            ) => Status::invalid_argument(text),
            Failure::State(_)
            | Failure::Image(ImageError::Step { .. } | ImageError::Run { .. }) => {
                Status::failed_precondition(text)
            }
            _ => Status::internal(text),
        }
    }
}

/// A name that becomes part of paths.
pub(super) fn check_id(field: &'static str, id: &str) -> Result<(), Failure> {
    if crate::files::is_safe_name(id) {
        return Ok(());
    }
    let reason = format!(
        "{id:?} is not made of letters, digits, `.`, `_` and `-` (at most 200, not led by a dot)"
    );
    Err(Failure::invalid(field, reason))
}
