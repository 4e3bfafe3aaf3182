//! What there is: groups, versions and kinds, as clients of Kubernetes look them up.

use std::collections::BTreeSet;

use axum::Json;
use serde_json::{Value, json};

use crate::kinds::{self, Kind, Subresource};
use crate::refusal::Refusal;

pub(super) async fn core_versions() -> Json<Value> {
    Json(json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    }))
}

pub(super) async fn groups() -> Json<Value> {
    let names: BTreeSet<&str> = kinds::ALL
        .into_iter()
        .map(|kind| kind.group)
        .filter(|group| !group.is_empty())
        .collect();
    let groups: Vec<Value> = names.into_iter().filter_map(describe).collect();
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// One group.
pub(super) fn group(name: &str) -> Result<Value, Refusal> {
    let mut group = describe(name).ok_or_else(|| missing(name))?;
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Ok(group)
}

/// The kinds of one version of a group.
pub(super) fn version(group: &str, version: &str) -> Result<Value, Refusal> {
    let kinds: Vec<&Kind> = kinds::ALL
        .into_iter()
        .filter(|kind| kind.group == group && kind.version == version)
        .collect();
    let Some(first) = kinds.first() else {
        return Err(missing(&format!("{group}/{version}")));
    };
    let resources: Vec<Value> = kinds.iter().flat_map(|kind| resources(kind)).collect();
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": resources,
    }))
}

fn describe(group: &str) -> Option<Value> {
    let kind = kinds::ALL
        .into_iter()
        .find(|kind| kind.group == group && !group.is_empty())?;
    let version = json!({"groupVersion": kind.api_version(), "version": kind.version});
    Some(json!({"name": group, "versions": [version], "preferredVersion": version}))
}

fn resources(kind: &Kind) -> Vec<Value> {
    let verbs: &[&str] = if kind.is_writable() {
        &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ]
    } else {
        &["get", "list", "watch"]
    };
    let mut resources = vec![json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.is_namespaced,
        "kind": kind.name,
        "verbs": verbs,
        "shortNames": kind.short_names,
        "categories": kind.categories,
    })];
    resources.extend(
        kind.subresources
            .iter()
            .map(|below| subresource(kind, *below)),
    );
    resources
}

fn subresource(kind: &Kind, subresource: Subresource) -> Value {
    let named = |name: &str, what: &str, verbs: &[&str]| {
        json!({
            "name": format!("{}/{name}", kind.plural),
            "singularName": "",
            "namespaced": kind.is_namespaced,
            "kind": what,
            "verbs": verbs,
        })
    };
    match subresource {
        Subresource::Status => named("status", kind.name, &["get", "patch", "update"]),
        Subresource::Scale => {
            let mut scale = named("scale", "Scale", &["get", "patch", "update"]);
            scale["group"] = json!("autoscaling");
            scale["version"] = json!("v1");
            scale
        }
        Subresource::Log => named("log", kind.name, &["get"]),
        Subresource::Exec => named("exec", "PodExecOptions", &["create", "get"]),
        Subresource::Proxy => named(
            "proxy",
            "PodProxyOptions",
            &["create", "delete", "get", "patch", "update"],
        ),
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::NotFound {
        resource: "groups".to_owned(),
        name: name.to_owned(),
    }
}
