//! What policies refer to, and the envelope that all of them share.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A policy as it is stored: metadata, what is wanted, what became of it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy<S> {
    /// `group/version`.
    #[serde(default)]
    pub api_version: String,
    /// The kind's name.
    #[serde(default)]
    pub kind: String,
    /// Name, namespace, labels, versions.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: S,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

impl<S> Policy<S> {
    /// The policy's own name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The policy's namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
}

/// What a policy applies to, in the policy's own namespace: a Service, an HTTPRoute, or one rule of it.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetReference {
    /// `""` for a Service, `gateway.networking.k8s.io` for an HTTPRoute; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The kind of the target.
    pub kind: TargetKind,
    /// The name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The name of one rule of an HTTPRoute, or of one port of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// The kinds that policies can apply to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[schemars(inline)]
pub enum TargetKind {
    /// All requests to a service.
    Service,
    /// The requests that a route matches.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
}

/// Chooses pods by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that a pod must all have; none chooses every pod.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

/// A share of requests in percent, 0 to 100, fractions allowed.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Deserialize, Serialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percentage(f64);

/// Why a number is no percentage.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{value} is not between 0 and 100")]
pub struct InvalidPercentage {
    value: f64,
}

impl Percentage {
    /// All requests.
    pub const ALL: Self = Self(100.0);

    /// The share in millionths, 0 to 1,000,000, as xDS wants it.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the constructor keeps it between 0 and 100"
    )]
    pub fn millionths(self) -> u32 {
        (self.0 * 10_000.0).round() as u32
    }

    /// The share in percent.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Percentage {
    fn default() -> Self {
        Self::ALL
    }
}

impl TryFrom<f64> for Percentage {
    type Error = InvalidPercentage;

    fn try_from(value: f64) -> Result<Self, InvalidPercentage> {
        if (0.0..=100.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(InvalidPercentage { value })
        }
    }
}

impl From<Percentage> for f64 {
    fn from(percentage: Percentage) -> Self {
        percentage.0
    }
}

impl JsonSchema for Percentage {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percentage".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number", "minimum": 0, "maximum": 100,
            "description": "A share in percent; 100 where left out.",
        })
    }
}
