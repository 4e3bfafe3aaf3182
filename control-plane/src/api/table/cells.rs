//! The cells of workloads.

use jiff::Timestamp;
use serde_json::Value;

use crate::kinds::Kind;
use crate::store::Object;

const NONE: &str = "<none>";

/// One cell.
pub(super) fn cell(kind: &Kind, object: &Object, column: &str, now: Timestamp) -> String {
    let value = object.value();
    match (kind.name, column) {
        ("Pod", _) => pod(object, column),
        ("Deployment", _) => deployment(value, column),
        ("Service", _) => service(value, column),
        ("EndpointSlice", _) => endpoint_slice(value, column),
        ("Namespace", _) => text(&value["status"]["phase"]),
        ("ConfigMap" | "Secret", "Data") => {
            let count = |field: &str| value[field].as_object().map_or(0, serde_json::Map::len);
            (count("data") + count("binaryData")).to_string()
        }
        ("Secret", _) => text(&value["type"]),
        ("Event", _) => event(value, column, now),
        ("Job", _) => job(value, column),
        _ => NONE.to_owned(),
    }
}

fn pod(pod: &Object, column: &str) -> String {
    let value = pod.value();
    match column {
        "Ready" => {
            let statuses = container_statuses(value);
            let ready = statuses
                .iter()
                .filter(|status| status["ready"] == true)
                .count();
            let sidecars = list(&value["spec"]["initContainers"])
                .filter(|container| container["restartPolicy"] == "Always")
                .count();
            let containers = list(&value["spec"]["containers"]).count();
            format!("{ready}/{}", containers + sidecars)
        }
        "Status" => pod_status(pod),
        "Restarts" => {
            let statuses = container_statuses(value);
            let restarts = statuses
                .iter()
                .filter_map(|status| status["restartCount"].as_u64());
            restarts.sum::<u64>().to_string()
        }
        "IP" => text(&value["status"]["podIP"]),
        _ => images(&value["spec"]),
    }
}

/// Those of containers and sidecars; ordinary init containers are not counted.
fn container_statuses(pod: &Value) -> Vec<&Value> {
    let sidecars: Vec<&Value> = list(&pod["spec"]["initContainers"])
        .filter(|container| container["restartPolicy"] == "Always")
        .map(|container| &container["name"])
        .collect();
    let init = list(&pod["status"]["initContainerStatuses"])
        .filter(|status| sidecars.contains(&&status["name"]));
    list(&pod["status"]["containerStatuses"])
        .chain(init)
        .collect()
}

/// The most telling of what is known: an end, a wait's reason, the phase.
fn pod_status(pod: &Object) -> String {
    if pod.is_deleting() {
        return "Terminating".to_owned();
    }
    let status = &pod.value()["status"];
    if let Some(reason) = status["reason"].as_str() {
        return reason.to_owned();
    }
    let phase = status["phase"].as_str().unwrap_or("Unknown");
    let waiting = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .flat_map(|field| list(&status[field]))
        .find_map(|container| container["state"]["waiting"]["reason"].as_str());
    let reason = match phase {
        "Pending" | "Running" => waiting,
        "Succeeded" => Some("Completed"),
        "Failed" => Some("Error"),
        _ => None,
    };
    reason.unwrap_or(phase).to_owned()
}

fn deployment(value: &Value, column: &str) -> String {
    let status = &value["status"];
    match column {
        "Ready" => format!(
            "{}/{}",
            number(&status["readyReplicas"]),
            number(&value["spec"]["replicas"])
        ),
        "Up-to-date" => number(&status["updatedReplicas"]).to_string(),
        "Available" => number(&status["availableReplicas"]).to_string(),
        "Containers" => joined(
            list(&value["spec"]["template"]["spec"]["containers"])
                .map(|container| text(&container["name"])),
        ),
        "Images" => images(&value["spec"]["template"]["spec"]),
        _ => labels(&value["spec"]["selector"]["matchLabels"]),
    }
}

fn service(value: &Value, column: &str) -> String {
    let spec = &value["spec"];
    match column {
        "Type" => text(&spec["type"]),
        "Cluster-IP" => text(&spec["clusterIP"]),
        "Port(s)" => joined(list(&spec["ports"]).map(|port| {
            format!(
                "{}/{}",
                number(&port["port"]),
                port["protocol"].as_str().unwrap_or("TCP")
            )
        })),
        _ => labels(&spec["selector"]),
    }
}

fn endpoint_slice(value: &Value, column: &str) -> String {
    match column {
        "AddressType" => text(&value["addressType"]),
        "Ports" => joined(list(&value["ports"]).map(|port| number(&port["port"]).to_string())),
        _ => joined(
            list(&value["endpoints"]).flat_map(|endpoint| list(&endpoint["addresses"]).map(text)),
        ),
    }
}

fn event(value: &Value, column: &str, now: Timestamp) -> String {
    match column {
        "Last Seen" => {
            let times = [
                &value["lastTimestamp"],
                &value["eventTime"],
                &value["metadata"]["creationTimestamp"],
            ];
            let last = times.into_iter().find(|time| time.is_string());
            age(last.unwrap_or(&Value::Null), now)
        }
        "Object" => {
            let object = &value["involvedObject"];
            format!(
                "{}/{}",
                text(&object["kind"]).to_lowercase(),
                text(&object["name"])
            )
        }
        column => text(&value[column.to_lowercase().as_str()]),
    }
}

fn job(value: &Value, column: &str) -> String {
    let status = &value["status"];
    match column {
        "Status" => list(&status["conditions"])
            .find(|condition| condition["status"] == "True")
            .map_or_else(
                || "Running".to_owned(),
                |condition| text(&condition["type"]),
            ),
        "Completions" => {
            format!(
                "{}/{}",
                number(&status["succeeded"]),
                number(&value["spec"]["completions"])
            )
        }
        _ => images(&value["spec"]["template"]["spec"]),
    }
}

/// How long ago a moment is, in the two largest units that matter, as kubectl says it.
pub(super) fn age(time: &Value, now: Timestamp) -> String {
    let Some(time) = time
        .as_str()
        .and_then(|time| time.parse::<Timestamp>().ok())
    else {
        return "<unknown>".to_owned();
    };
    let seconds = now.duration_since(time).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, 'y', days % 365, 'd'),
    }
}

fn images(spec: &Value) -> String {
    joined(list(&spec["containers"]).map(|container| text(&container["image"])))
}

fn labels(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    joined(labels.map(|(key, value)| format!("{key}={}", text(value))))
}

pub(super) fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        NONE.to_owned()
    } else {
        parts.join(",")
    }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => NONE.to_owned(),
        value => value.to_string(),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ages_are_said_as_kubectl_says_them() {
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-01-10T00:00:00Z", "0s"),
            ("2026-01-09T23:58:01Z", "119s"),
            ("2026-01-09T23:55:30Z", "4m30s"),
            ("2026-01-09T23:00:00Z", "60m"),
            ("2026-01-09T19:30:00Z", "4h30m"),
            ("2026-01-07T00:00:00Z", "3d"),
            ("2026-01-11T00:00:00Z", "0s"),
        ] {
            assert_eq!(age(&json!(time), now), expected, "{time}");
        }
    }
}
