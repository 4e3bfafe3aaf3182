//! What is taken out of objects before they are looked at: `null`s, and fields that their kind does not have.

use serde_json::Value;

use crate::kinds::{Kind, schema};

/// Removes the fields that the kind does not have.
pub fn prune(kind: &Kind, value: &mut Value) {
    prune_value(schema::of(kind), value);
}

fn prune_value(schema: &'static Value, value: &mut Value) {
    let (_, schema) = schema::resolve(schema);
    match value {
        Value::Object(fields) => {
            if schema["properties"].is_object() && !schema["additionalProperties"].is_object() {
                fields.retain(|name, _| schema["properties"].get(name).is_some());
            }
            for (name, field) in fields {
                prune_value(schema::field(schema, name), field);
            }
        }
        Value::Array(items) => {
            for item in items {
                prune_value(schema::items(schema), item);
            }
        }
        _ => {}
    }
}

/// Removes fields that are `null`: the API takes them for absent.
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
