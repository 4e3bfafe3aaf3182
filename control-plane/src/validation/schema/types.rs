//! The last word on an object is that of the type that will read it: what it cannot read, nobody else could.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::kinds::{self, Kind};
use crate::refusal::Cause;

/// Why the type of a kind cannot read an object.
pub(super) fn parse(kind: &Kind, value: &Value) -> Option<Cause> {
    use k8s_openapi::api::{apps, batch, core, discovery};
    match kind.name {
        "Namespace" => parse_as::<core::v1::Namespace>(value),
        "Pod" => parse_as::<core::v1::Pod>(value),
        "Service" => parse_as::<core::v1::Service>(value),
        "ServiceAccount" => parse_as::<core::v1::ServiceAccount>(value),
        "ConfigMap" => parse_as::<core::v1::ConfigMap>(value),
        "Secret" => parse_as::<core::v1::Secret>(value),
        "Event" => parse_as::<core::v1::Event>(value),
        "Deployment" => parse_as::<apps::v1::Deployment>(value),
        "Job" => parse_as::<batch::v1::Job>(value),
        "EndpointSlice" => parse_as::<discovery::v1::EndpointSlice>(value),
        "HTTPRoute" => parse_as::<kinds::http_route::HttpRoute>(value),
        "BackendTrafficPolicy" => {
            parse_as::<kinds::backend_traffic_policy::BackendTrafficPolicy>(value)
        }
        "PeerAuthentication" => parse_as::<kinds::peer_authentication::PeerAuthentication>(value),
        "Telemetry" => parse_as::<kinds::telemetry::Telemetry>(value),
        _ => None,
    }
}

fn parse_as<T: DeserializeOwned>(value: &Value) -> Option<Cause> {
    let error = serde_path_to_error::deserialize::<_, T>(value).err()?;
    let field = error.path().to_string();
    Some(Cause::invalid(
        field,
        &json!("…"),
        error.inner().to_string(),
    ))
}
