//! `Telemetry` of weft.dev: what sidecars tell of the traffic, and whom.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{Percentage, Policy, TargetReference};

/// The resource.
pub type Telemetry = Policy<TelemetrySpec>;

/// What is told of the requests to its targets; of all in the namespace where it has none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TelemetrySpec {
    /// Services; every service of the namespace where left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub target_refs: Vec<TargetReference>,
    /// Spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// One line for each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
}

/// Which requests are traced, and where spans go.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// The share of requests without a sampling decision of their caller that is traced.
    #[serde(default)]
    pub random_sampling_percentage: Percentage,
    /// `http://host:port` of an OTLP receiver (gRPC) in the host's network; the daemon's
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub endpoint: Option<String>,
}

/// What the access log says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLog {
    /// `false` switches it off.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// `TEXT`, Envoy's default format, where left out.
    #[serde(default)]
    pub format: AccessLogFormat,
    /// Only answers of this status and above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub minimum_status: Option<u16>,
}

fn yes() -> bool {
    true
}

/// The formats there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum AccessLogFormat {
    /// Envoy's default line.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
