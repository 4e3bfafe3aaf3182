//! What can go wrong between a client and the API.

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};

/// Why a call did not do what it should. The messages name the call.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answers there.
    #[error("connecting to the API at {endpoint}: is the daemon running? `weft status` tells")]
    Connect {
        /// Socket path or address.
        endpoint: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The API refused; [`ApiError::reason`] and the rest read it.
    #[error("{}", message(.status))]
    Refused {
        /// The call.
        what: String,
        /// What it answered.
        status: Box<Status>,
    },
    /// The answer did not come in time.
    #[error("{what}: no answer in time")]
    TimedOut {
        /// The call.
        what: String,
    },
    /// The connection broke.
    #[error("{what}")]
    Transport {
        /// The call.
        what: String,
        /// How.
        source: hyper::Error,
    },
    /// The answer broke off, or was too large.
    #[error("reading the answer of {what}")]
    Body {
        /// The call.
        what: String,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what was asked for.
    #[error("the answer of {what} is not the object that was asked for")]
    Decode {
        /// The call.
        what: String,
        /// Where.
        source: serde_json::Error,
    },
    /// The object cannot be written as JSON.
    #[error("writing an object as JSON")]
    Encode {
        /// Why.
        source: serde_json::Error,
    },
    /// Names that no URL can hold.
    #[error("{what} is no request")]
    Request {
        /// The call.
        what: String,
        /// Why.
        source: http::Error,
    },
}

impl ApiError {
    pub(super) fn from_body(code: StatusCode, body: &[u8], what: String) -> Self {
        let mut status: Status = serde_json::from_slice(body).unwrap_or_else(|_| Status {
            message: Some(plain_message(code, body, &what)),
            ..Status::default()
        });
        status.code.get_or_insert(i32::from(code.as_u16()));
        Self::Refused {
            what,
            status: Box::new(status),
        }
    }

    /// The refusal, where it is one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        self.status()?
            .code
            .and_then(|code| u16::try_from(code).ok())
    }

    /// One word for programs: `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, …
    pub fn reason(&self) -> Option<&str> {
        self.status()?.reason.as_deref()
    }

    /// What exactly was refused, field by field.
    pub fn causes(&self) -> &[StatusCause] {
        let details = self.status().and_then(|status| status.details.as_ref());
        details
            .and_then(|details| details.causes.as_deref())
            .unwrap_or_default()
    }

    /// Whether the thing named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether it exists already, or somebody else changed it first.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether a watch's place in history is no longer there.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(410)
    }

    /// Whether validation said no.
    pub fn is_invalid(&self) -> bool {
        matches!(self.code(), Some(400 | 422))
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::Transport { .. }
            | Self::Body { .. } => true,
            Self::Refused { .. } => self.code().is_some_and(|code| code == 429 || code >= 500),
            Self::Decode { .. } | Self::Encode { .. } | Self::Request { .. } => false,
        }
    }
}

fn message(status: &Status) -> String {
    match (&status.message, &status.reason) {
        (Some(message), _) if !message.is_empty() => message.clone(),
        (_, Some(reason)) => format!("the API refused: {reason}"),
        _ => format!("the API answered {}", status.code.unwrap_or_default()),
    }
}

fn plain_message(code: StatusCode, body: &[u8], what: &str) -> String {
    const MAX_CHARS: usize = 300;
    let text: String = String::from_utf8_lossy(body)
        .trim()
        .chars()
        .take(MAX_CHARS)
        .collect();
    if text.is_empty() {
        format!("{what}: the API answered {code}")
    } else {
        format!("{what}: the API answered {code}: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_reason_message_and_causes() {
        let body = br#"{"kind":"Status","status":"Failure","message":"spec.rules[0] is wrong","reason":"Invalid","code":422,
            "details":{"causes":[{"field":"spec.rules[0]","message":"is wrong","reason":"FieldValueInvalid"}]}}"#;

        let error = ApiError::from_body(StatusCode::UNPROCESSABLE_ENTITY, body, "PATCH x".into());

        assert!(error.is_invalid());
        assert_eq!(error.reason(), Some("Invalid"));
        assert_eq!(error.to_string(), "spec.rules[0] is wrong");
        assert_eq!(error.causes()[0].field.as_deref(), Some("spec.rules[0]"));
    }

    #[test]
    fn an_answer_that_is_no_status_is_shown_as_it_is() {
        let error = ApiError::from_body(StatusCode::BAD_GATEWAY, b"oops", "GET /x".into());

        assert_eq!(
            error.to_string(),
            "GET /x: the API answered 502 Bad Gateway: oops"
        );
        assert!(error.is_transient());
    }
}
