//! Why a request is refused, in the words of the Kubernetes API.
//!
//! Everything below the API returns these; the API turns each into a `metav1.Status` with its status code.

use http::StatusCode;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::store::{self, Gone};

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Kubernetes' word for the class of the mistake.
    pub reason: CauseReason,
    /// `spec.rules[0].backendRefs[1].weight`.
    pub field: String,
    /// For people; begins with what Kubernetes begins with.
    pub message: String,
}

/// The classes of mistakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CauseReason {
    /// It must be there.
    Required,
    /// It may not be this.
    Invalid,
    /// It is none of the words allowed.
    NotSupported,
    /// It is there twice.
    Duplicate,
    /// It may not be there.
    Forbidden,
    /// What it refers to does not exist.
    NotFound,
    /// Another manager of fields owns it.
    Conflict,
}

impl CauseReason {
    /// As `metav1.CauseType` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::Conflict => "FieldManagerConflict",
        }
    }
}

impl Cause {
    /// `<field>: Required value: <why>`.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        };
        Self::new(CauseReason::Required, field, message)
    }

    /// `<field>: Invalid value: <value>: <why>`.
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {}: {}", shown(value), why.as_ref());
        Self::new(CauseReason::Invalid, field, message)
    }

    /// `<field>: Unsupported value: <value>: supported values: …`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let message = format!(
            "Unsupported value: {}: supported values: {}",
            shown(value),
            supported.join(", ")
        );
        Self::new(CauseReason::NotSupported, field, message)
    }

    /// `<field>: Duplicate value: <value>: <why>`.
    pub fn duplicate(field: impl Into<String>, value: &str, why: impl AsRef<str>) -> Self {
        let message = format!("Duplicate value: {value:?}: {}", why.as_ref());
        Self::new(CauseReason::Duplicate, field, message)
    }

    /// `<field>: Forbidden: <why>`.
    pub fn forbidden(field: impl Into<String>, why: impl AsRef<str>) -> Self {
        let message = format!("Forbidden: {}", why.as_ref());
        Self::new(CauseReason::Forbidden, field, message)
    }

    /// `<field>: Not found: <what>`.
    pub fn not_found(field: impl Into<String>, what: impl AsRef<str>) -> Self {
        let message = format!("Not found: {}", what.as_ref());
        Self::new(CauseReason::NotFound, field, message)
    }

    fn new(reason: CauseReason, field: impl Into<String>, message: String) -> Self {
        Self {
            reason,
            field: field.into(),
            message,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

/// A value short enough for a message.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= LONGEST {
        return text;
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start}…")
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The object does not exist.
    #[error("{resource} {name:?} not found")]
    NotFound {
        /// `deployments.apps`.
        resource: String,
        /// What was asked for.
        name: String,
    },
    /// It exists already.
    #[error("{resource} {name:?} already exists")]
    AlreadyExists {
        /// `deployments.apps`.
        resource: String,
        /// What was to be created.
        name: String,
    },
    /// It has changed since it was read.
    #[error("Operation cannot be fulfilled on {resource} {name:?}: {why}")]
    Conflict {
        /// `deployments.apps`.
        resource: String,
        /// What was to be changed.
        name: String,
        /// What to do.
        why: String,
    },
    /// Other managers own fields of a server-side apply.
    #[error("Apply failed with {} conflict{}: {}", causes.len(), if causes.len() == 1 { "" } else { "s" }, join(causes))]
    ApplyConflict {
        /// The fields and their owners.
        causes: Vec<Cause>,
    },
    /// The object is not valid.
    #[error("{kind}{} {name:?} is invalid: {}", dotted(group), join(causes))]
    Invalid {
        /// Its kind.
        kind: &'static str,
        /// Its group.
        group: &'static str,
        /// Its name.
        name: String,
        /// All that is wrong.
        causes: Vec<Cause>,
    },
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The request may not be made.
    #[error("{0}")]
    Forbidden(String),
    /// No credentials, or wrong ones.
    #[error("Unauthorized: send the token of this mesh as `Authorization: Bearer <token>`")]
    Unauthorized,
    /// The kind cannot do that.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// The watch is too old.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The body is in a format not understood.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The body is too large.
    #[error("the request's body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Too much at once.
    #[error("{0}")]
    TooManyRequests(String),
    /// A part that is needed does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Something did not come in time.
    #[error("{0}")]
    Timeout(String),
    /// The store failed.
    #[error("{}", chain(.0))]
    Store(#[from] store::Error),
    /// Something else that is not the caller's fault.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// Nothing of that name.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::NotFound {
            resource: kind.resource(),
            name: name.to_owned(),
        }
    }

    /// An object with something wrong.
    pub fn invalid(kind: &'static Kind, name: &str, causes: Vec<Cause>) -> Self {
        Self::Invalid {
            kind: kind.name,
            group: kind.group,
            name: name.to_owned(),
            causes,
        }
    }

    /// A write on top of an outdated read.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::Conflict {
            resource: kind.resource(),
            name: name.to_owned(),
            why: "the object has been modified; please apply your changes to the latest version and try again"
                .to_owned(),
        }
    }

    /// The status code.
    pub fn code(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::AlreadyExists { .. } | Self::Conflict { .. } | Self::ApplyConflict { .. } => {
                StatusCode::CONFLICT
            }
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Gone(_) => StatusCode::GONE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Store(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Kubernetes' word for it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "NotFound",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::Conflict { .. } | Self::ApplyConflict { .. } => "Conflict",
            Self::Invalid { .. } => "Invalid",
            Self::BadRequest(_) => "BadRequest",
            Self::Forbidden(_) => "Forbidden",
            Self::Unauthorized => "Unauthorized",
            Self::MethodNotAllowed(_) => "MethodNotAllowed",
            Self::Gone(_) => "Expired",
            Self::UnsupportedMediaType(_) => "UnsupportedMediaType",
            Self::TooLarge { .. } => "RequestEntityTooLarge",
            Self::TooManyRequests(_) => "TooManyRequests",
            Self::Unavailable(_) => "ServiceUnavailable",
            Self::Timeout(_) => "Timeout",
            Self::Store(_) | Self::Internal(_) => "InternalError",
        }
    }

    /// The `metav1.Status` that says so.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.to_string(),
            "reason": self.reason(),
            "code": self.code().as_u16(),
        });
        let details = self.details();
        if !details.is_null() {
            status["details"] = details;
        }
        status
    }

    fn details(&self) -> Value {
        match self {
            Self::NotFound { resource, name }
            | Self::AlreadyExists { resource, name }
            | Self::Conflict { resource, name, .. } => {
                let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
                json!({"name": name, "group": group, "kind": plural})
            }
            Self::Invalid {
                kind,
                group,
                name,
                causes,
            } => json!({"name": name, "group": group, "kind": kind, "causes": listed(causes)}),
            Self::ApplyConflict { causes } => json!({"causes": listed(causes)}),
            _ => Value::Null,
        }
    }
}

fn listed(causes: &[Cause]) -> Vec<Value> {
    causes
        .iter()
        .map(|cause| {
            json!({"reason": cause.reason.as_str(), "message": cause.message, "field": cause.field})
        })
        .collect()
}

fn join(causes: &[Cause]) -> String {
    let texts: Vec<String> = causes.iter().map(Cause::to_string).collect();
    match texts.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", texts.join(", ")),
    }
}

fn dotted(group: &str) -> String {
    if group.is_empty() {
        String::new()
    } else {
        format!(".{group}")
    }
}

fn chain(error: &store::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
