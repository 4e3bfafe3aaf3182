//! `managedFields`: who owns which fields of an object, as it is written there.

use serde_json::{Value, json};

use super::Manager;
use crate::api::fields::{self, FieldSet};

/// Most entries of `managedFields`; the oldest updates beyond are put together.
const MOST_MANAGERS: usize = 20;

/// What one manager owns by one kind of write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: String,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) fields: FieldSet,
}

impl Entry {
    /// Whether it is what a manager does in this way.
    pub(super) fn is_of(&self, manager: &Manager, operation: &str) -> bool {
        self.manager == manager.name
            && self.operation == operation
            && self.subresource.as_deref() == manager.subresource
    }
}

/// The entries of an object.
pub(super) fn read(value: &Value) -> Vec<Entry> {
    let text = |entry: &Value, field: &str| entry[field].as_str().map(str::to_owned);
    value["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(Entry {
                manager: text(entry, "manager")?,
                operation: text(entry, "operation")?,
                api_version: text(entry, "apiVersion")?,
                time: text(entry, "time"),
                subresource: text(entry, "subresource").filter(|name| !name.is_empty()),
                fields: fields::decode(&entry["fieldsV1"]),
            })
        })
        .collect()
}

/// `managedFields: [{}]` asks to forget all owners.
pub(super) fn is_reset(value: &Value) -> bool {
    value["metadata"]["managedFields"].is_array()
}

/// Puts entries in place of those of an object; empty ones are left out.
pub(super) fn write(value: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    while entries.len() > MOST_MANAGERS {
        let Some(oldest) = entries.iter().position(|entry| entry.operation == "Update") else {
            break;
        };
        let oldest = entries.remove(oldest);
        let heir = entries.iter_mut().find(|entry| entry.operation == "Update");
        if let Some(heir) = heir {
            heir.manager = "ancient-changes".to_owned();
            heir.fields.extend(oldest.fields);
        }
    }
    let encoded: Vec<Value> = entries
        .into_iter()
        .map(|entry| {
            let mut encoded = json!({
                "manager": entry.manager,
                "operation": entry.operation,
                "apiVersion": entry.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields::encode(&entry.fields),
            });
            if let Some(time) = entry.time {
                encoded["time"] = json!(time);
            }
            if let Some(subresource) = entry.subresource {
                encoded["subresource"] = json!(subresource);
            }
            encoded
        })
        .collect();
    if encoded.is_empty() {
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.shift_remove("managedFields");
        }
    } else {
        value["metadata"]["managedFields"] = Value::Array(encoded);
    }
}
