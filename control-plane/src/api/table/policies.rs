//! The cells of policies.

use serde_json::Value;

use super::cells::{joined, list, text};

/// One cell.
pub(super) fn cell(value: &Value, column: &str) -> String {
    let spec = &value["spec"];
    match column {
        "Services" => joined(list(&spec["parentRefs"]).map(|parent| text(&parent["name"]))),
        "Rules" => list(&spec["rules"]).count().to_string(),
        "Backends" => joined(
            list(&spec["rules"])
                .flat_map(|rule| list(&rule["backendRefs"]))
                .map(backend),
        ),
        "Targets" => joined(list(&spec["targetRefs"]).map(target)),
        "Settings" => {
            let fields = spec.as_object().into_iter().flatten();
            joined(
                fields
                    .map(|(name, _)| name.clone())
                    .filter(|name| name != "targetRefs"),
            )
        }
        "Mode" => text(&spec["mtls"]["mode"]),
        _ => {
            let labels = spec["selector"]["matchLabels"]
                .as_object()
                .into_iter()
                .flatten();
            joined(labels.map(|(key, value)| format!("{key}={}", text(value))))
        }
    }
}

fn backend(backend: &Value) -> String {
    match backend["weight"].as_u64() {
        Some(weight) => format!("{}={weight}", text(&backend["name"])),
        None => text(&backend["name"]),
    }
}

fn target(target: &Value) -> String {
    let name = format!("{}/{}", text(&target["kind"]), text(&target["name"]));
    match target["sectionName"].as_str() {
        Some(section) => format!("{name}/{section}"),
        None => name,
    }
}
