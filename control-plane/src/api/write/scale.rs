//! The number of replicas of a Deployment, apart from all else of it.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::checks::{self, WriteOptions};
use crate::admission;
use crate::api::Api;
use crate::api::patch::{PatchType, patched};
use crate::api::request::Request;
use crate::api::response;
use crate::kinds::Kind;
use crate::refusal::{Cause, Refusal};
use crate::store::{Name, Object};

/// The scale of a Deployment.
pub(in crate::api) fn get_scale(
    api: &Api,
    kind: &'static Kind,
    name: &Name,
) -> Result<Response, Refusal> {
    let snapshot = api.store.snapshot();
    let object = snapshot
        .find(kind, name)
        .ok_or_else(|| Refusal::not_found(kind, &name.name))?;
    Ok(response::json(StatusCode::OK, &scale_of(object)))
}

/// Sets the number of replicas.
pub(in crate::api) async fn replace_scale(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
    scale: Value,
) -> Result<Response, Refusal> {
    write(api, request, kind, name, move |_| Ok(scale)).await
}

/// Patches the number of replicas.
pub(in crate::api) async fn patch_scale(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
    change: Value,
) -> Result<Response, Refusal> {
    let how = PatchType::of(&request.content_type())?;
    write(api, request, kind, name, move |object| {
        patched(kind, &scale_of(object), &change, how)
    })
    .await
}

async fn write(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
    wanted: impl FnOnce(&Object) -> Result<Value, Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let options = WriteOptions::of(request, None)?;
    let name = name.clone();
    let committed = admission::write(&api.store, options.intent(), move |transaction| {
        let existing = super::find(transaction, kind, &name)?;
        let scale = wanted(&existing)?;
        checks::check_precondition(&existing, &scale)?;
        let replicas = replicas(kind, &name, &scale)?;
        let mut value = existing.value().clone();
        value["spec"]["replicas"] = json!(replicas);
        let (object, _) = super::update(transaction, &existing, value, &options)?;
        Ok(scale_of(&object))
    })
    .await?;
    let mut response = response::json(StatusCode::OK, &committed.result);
    response::warn(response.headers_mut(), &committed.warnings);
    Ok(response)
}

/// No number is 0, as everywhere in Kubernetes.
fn replicas(kind: &'static Kind, name: &Name, scale: &Value) -> Result<i32, Refusal> {
    let given = scale["spec"].get("replicas").cloned().unwrap_or(json!(0));
    given
        .as_i64()
        .and_then(|replicas| i32::try_from(replicas).ok())
        .filter(|replicas| *replicas >= 0)
        .ok_or_else(|| {
            let cause = Cause::invalid(
                "spec.replicas",
                &given,
                "must be greater than or equal to 0",
            );
            Refusal::invalid(kind, &name.name, vec![cause])
        })
}

fn scale_of(object: &Object) -> Value {
    let value = object.value();
    let metadata = &value["metadata"];
    let labels = value["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": value["spec"]["replicas"]},
        "status": {
            "replicas": value["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": selector.join(","),
        },
    })
}
