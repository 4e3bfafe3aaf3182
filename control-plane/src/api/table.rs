//! Objects as tables, as `kubectl get` shows them.

mod cells;
mod policies;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::query::Query;
use crate::kinds::{self, Kind};
use crate::store::Object;

/// A column: its name, and whether it is only shown when asked for more.
#[derive(Debug, Clone, Copy)]
struct Column {
    name: &'static str,
    is_wide: bool,
}

const fn column(name: &'static str) -> Column {
    Column {
        name,
        is_wide: false,
    }
}

const fn wide(name: &'static str) -> Column {
    Column {
        name,
        is_wide: true,
    }
}

/// A table of objects.
pub(super) fn table<'a>(
    kind: &'static Kind,
    objects: impl Iterator<Item = &'a Object>,
    metadata: &Value,
    query: &Query,
) -> Value {
    let now = Timestamp::now();
    let rows: Vec<Value> = objects
        .map(|object| row(kind, object, query, now))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions(kind),
        "rows": rows,
    })
}

fn definitions(kind: &'static Kind) -> Vec<Value> {
    columns(kind)
        .iter()
        .enumerate()
        .map(|(index, column)| {
            json!({
                "name": column.name,
                "type": "string",
                "format": if index == 0 { "name" } else { "" },
                "description": column.name,
                "priority": i32::from(column.is_wide),
            })
        })
        .collect()
}

fn row(kind: &'static Kind, object: &Object, query: &Query, now: Timestamp) -> Value {
    let cells: Vec<String> = columns(kind)
        .iter()
        .map(|column| cell(kind, object, column.name, now))
        .collect();
    let shown = match query.text("includeObject") {
        Some("None") => Value::Null,
        Some("Object") => object.value().clone(),
        _ => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object.value()["metadata"],
        }),
    };
    json!({"cells": cells, "object": shown})
}

fn columns(kind: &'static Kind) -> &'static [Column] {
    const POD: &[Column] = &[
        column("Name"),
        column("Ready"),
        column("Status"),
        column("Restarts"),
        column("Age"),
        wide("IP"),
        wide("Images"),
    ];
    const DEPLOYMENT: &[Column] = &[
        column("Name"),
        column("Ready"),
        column("Up-to-date"),
        column("Available"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ];
    const SERVICE: &[Column] = &[
        column("Name"),
        column("Type"),
        column("Cluster-IP"),
        column("Port(s)"),
        column("Age"),
        wide("Selector"),
    ];
    const ENDPOINT_SLICE: &[Column] = &[
        column("Name"),
        column("AddressType"),
        column("Ports"),
        column("Endpoints"),
        column("Age"),
    ];
    const NAMESPACE: &[Column] = &[column("Name"), column("Status"), column("Age")];
    const CONFIG_MAP: &[Column] = &[column("Name"), column("Data"), column("Age")];
    const SECRET: &[Column] = &[
        column("Name"),
        column("Type"),
        column("Data"),
        column("Age"),
    ];
    const EVENT: &[Column] = &[
        column("Last Seen"),
        column("Type"),
        column("Reason"),
        column("Object"),
        column("Message"),
    ];
    const JOB: &[Column] = &[
        column("Name"),
        column("Status"),
        column("Completions"),
        column("Age"),
        wide("Images"),
    ];
    const HTTP_ROUTE: &[Column] = &[
        column("Name"),
        column("Services"),
        column("Rules"),
        column("Backends"),
        column("Age"),
    ];
    const TRAFFIC: &[Column] = &[
        column("Name"),
        column("Targets"),
        column("Settings"),
        column("Age"),
    ];
    const PEER: &[Column] = &[
        column("Name"),
        column("Mode"),
        column("Selector"),
        column("Age"),
    ];
    const OTHER: &[Column] = &[column("Name"), column("Age")];
    match kind.name {
        "Pod" => POD,
        "Deployment" => DEPLOYMENT,
        "Service" => SERVICE,
        "EndpointSlice" => ENDPOINT_SLICE,
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Event" => EVENT,
        "Job" => JOB,
        "HTTPRoute" => HTTP_ROUTE,
        "BackendTrafficPolicy" | "Telemetry" => TRAFFIC,
        "PeerAuthentication" => PEER,
        _ => OTHER,
    }
}

fn cell(kind: &'static Kind, object: &Object, column: &str, now: Timestamp) -> String {
    match column {
        "Name" => object.name().name.clone(),
        "Age" => cells::age(&object.value()["metadata"]["creationTimestamp"], now),
        _ if kind.role == kinds::Role::Policy => policies::cell(object.value(), column),
        _ => cells::cell(kind, object, column, now),
    }
}
