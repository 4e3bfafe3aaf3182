//! What is filled in where people leave it out: Kubernetes' defaults, for the fields that weft reads.

use serde_json::{Map, Value, json};

use crate::kinds::{self, Kind};

/// Fills in an object's defaults.
pub(super) fn fill(kind: &Kind, value: &mut Value) {
    value["apiVersion"] = json!(kind.api_version());
    value["kind"] = json!(kind.name);
    if *kind == kinds::DEPLOYMENT {
        deployment(value);
    } else if *kind == kinds::JOB {
        job(value);
    } else if *kind == kinds::POD {
        pod_spec(&mut value["spec"]);
    } else if *kind == kinds::SERVICE {
        service(value);
    } else if *kind == kinds::SECRET {
        secret(value);
    } else if *kind == kinds::NAMESPACE {
        let name = value["metadata"]["name"].clone();
        set(&mut value["metadata"], "labels", json!({}));
        set(
            &mut value["metadata"]["labels"],
            "kubernetes.io/metadata.name",
            name,
        );
    }
}

/// The status of something new.
pub(super) fn reset_status(kind: &Kind, value: &mut Value) {
    let status = if *kind == kinds::POD {
        json!({"phase": "Pending"})
    } else if *kind == kinds::NAMESPACE {
        json!({"phase": "Active"})
    } else {
        json!({})
    };
    if let Some(object) = value.as_object_mut() {
        // Policies have a status only when there is something to say.
        if kind.role == kinds::Role::Policy {
            object.remove("status");
        } else {
            object.insert("status".to_owned(), status);
        }
    }
}

fn deployment(value: &mut Value) {
    let spec = &mut value["spec"];
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "progressDeadlineSeconds", json!(600));
    set(spec, "strategy", json!({"type": "RollingUpdate"}));
    set(&mut spec["strategy"], "type", json!("RollingUpdate"));
    if spec["strategy"]["type"] == "RollingUpdate" {
        let strategy = &mut spec["strategy"];
        set(strategy, "rollingUpdate", json!({}));
        set(&mut strategy["rollingUpdate"], "maxSurge", json!("25%"));
        set(
            &mut strategy["rollingUpdate"],
            "maxUnavailable",
            json!("25%"),
        );
    }
    pod_spec(&mut spec["template"]["spec"]);
}

fn job(value: &mut Value) {
    let spec = &mut value["spec"];
    set(spec, "parallelism", json!(1));
    set(spec, "completions", json!(1));
    set(spec, "backoffLimit", json!(6));
    pod_spec(&mut spec["template"]["spec"]);
}

fn pod_spec(spec: &mut Value) {
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "serviceAccountName", json!("default"));
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let ports = container.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten() {
                set(port, "protocol", json!("TCP"));
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(probe) = container.get_mut(probe) {
                    fill_probe(probe);
                }
            }
        }
    }
}

fn fill_probe(probe: &mut Value) {
    set(probe, "timeoutSeconds", json!(1));
    set(probe, "periodSeconds", json!(10));
    set(probe, "successThreshold", json!(1));
    set(probe, "failureThreshold", json!(3));
    if let Some(http) = probe.get_mut("httpGet") {
        set(http, "path", json!("/"));
        set(http, "scheme", json!("HTTP"));
    }
}

fn service(value: &mut Value) {
    let spec = &mut value["spec"];
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        set(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        set(port, "targetPort", number);
    }
}

/// `stringData` is write-only: it becomes `data`.
fn secret(value: &mut Value) {
    use base64::Engine;
    set(value, "type", json!("Opaque"));
    let Some(Value::Object(texts)) = value.as_object_mut().and_then(|it| it.remove("stringData"))
    else {
        return;
    };
    set(value, "data", json!({}));
    for (key, text) in texts {
        let bytes = text.as_str().unwrap_or_default();
        value["data"][key] = json!(base64::engine::general_purpose::STANDARD.encode(bytes));
    }
}

/// Sets a field of an object where it is missing; leaves what is no object alone.
fn set(value: &mut Value, field: &str, default: Value) {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    if let Some(object) = value.as_object_mut() {
        object.entry(field.to_owned()).or_insert(default);
    }
}
