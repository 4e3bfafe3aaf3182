//! JSON schemas of all kinds, generated from the types that read them.
//!
//! One set of definitions serves three readers: validation walks it, OpenAPI publishes it, patches find in it
//! which lists are maps. Names are Kubernetes' own where the type is; `$ref`s point to
//! `#/components/schemas/<name>`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::{apps, batch, core, discovery};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::lists::{ListType, list_type};
use super::{Kind, Role};

/// Where `$ref`s point.
pub const REFERENCE_PREFIX: &str = "#/components/schemas/";

/// The name of metadata's schema.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

static DEFINITIONS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(generate);

/// All schemas by name.
pub fn definitions() -> &'static BTreeMap<String, Value> {
    &DEFINITIONS
}

/// The name of a kind's schema: `io.k8s.api.apps.v1.Deployment`, `dev.weft.v1alpha1.Telemetry`.
pub fn name_of(kind: &Kind) -> String {
    let package = match kind.group {
        "" => "io.k8s.api.core".to_owned(),
        "apps" => "io.k8s.api.apps".to_owned(),
        "batch" => "io.k8s.api.batch".to_owned(),
        "discovery.k8s.io" => "io.k8s.api.discovery".to_owned(),
        group => group.rsplit('.').collect::<Vec<_>>().join("."),
    };
    format!("{package}.{}.{}", kind.version, kind.name)
}

/// The schema of a kind.
pub fn of(kind: &Kind) -> &'static Value {
    static EMPTY: Value = Value::Null;
    DEFINITIONS.get(&name_of(kind)).unwrap_or(&EMPTY)
}

/// Follows `$ref`s, also those wrapped in an `allOf` of one, to the schema and, where it has one, its name.
pub fn resolve(schema: &'static Value) -> (Option<&'static str>, &'static Value) {
    let mut name = None;
    let mut schema = schema;
    // References form a tree a few levels deep; the bound is against a cycle that nobody meant.
    for _ in 0..16 {
        let reference = schema.get("$ref").or_else(|| match schema.get("allOf") {
            Some(Value::Array(parts)) if parts.len() == 1 => parts[0].get("$ref"),
            _ => None,
        });
        let Some(target) = reference
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix(REFERENCE_PREFIX))
        else {
            return (name, schema);
        };
        let Some((target, definition)) = DEFINITIONS.get_key_value(target) else {
            return (name, schema);
        };
        name = Some(target.as_str());
        schema = definition;
    }
    (name, schema)
}

/// The schema of a field; `Null` where nothing is known of it.
pub fn field(schema: &'static Value, name: &str) -> &'static Value {
    static UNKNOWN: Value = Value::Null;
    let (_, schema) = resolve(schema);
    match schema["properties"].get(name) {
        Some(property) => property,
        None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
        None => &UNKNOWN,
    }
}

/// The schema of a list's elements.
pub fn items(schema: &'static Value) -> &'static Value {
    let (_, schema) = resolve(schema);
    &schema["items"]
}

/// The fields that tell a list's elements apart; `None` where it is no map.
pub fn map_keys(schema: &'static Value) -> Option<Vec<&'static str>> {
    let (_, schema) = resolve(schema);
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
    Some(keys.iter().filter_map(Value::as_str).collect())
}

/// Whether a list's elements are told apart by their value.
pub fn is_set(schema: &'static Value) -> bool {
    let (_, schema) = resolve(schema);
    schema["x-kubernetes-list-type"] == "set"
}

fn generate() -> BTreeMap<String, Value> {
    let mut generator = settings(false).into_generator();
    generator.subschema_for::<core::v1::Namespace>();
    generator.subschema_for::<core::v1::Pod>();
    generator.subschema_for::<core::v1::Service>();
    generator.subschema_for::<core::v1::ServiceAccount>();
    generator.subschema_for::<core::v1::ConfigMap>();
    generator.subschema_for::<core::v1::Secret>();
    generator.subschema_for::<core::v1::Event>();
    generator.subschema_for::<apps::v1::Deployment>();
    generator.subschema_for::<batch::v1::Job>();
    generator.subschema_for::<discovery::v1::EndpointSlice>();
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::DeleteOptions>();
    let mut definitions: BTreeMap<String, Value> =
        generator.take_definitions(true).into_iter().collect();
    for kind in super::ALL {
        if kind.role == Role::Policy {
            definitions.insert(name_of(kind), policy(kind));
        }
        if let Some(Value::Object(schema)) = definitions.get_mut(&name_of(kind)) {
            schema.insert(
                "x-kubernetes-group-version-kind".into(),
                json!([identity(kind)]),
            );
        }
    }
    for (name, schema) in &mut definitions {
        mark_lists(name, schema);
    }
    definitions
}

fn settings(is_inline: bool) -> SchemaSettings {
    SchemaSettings::openapi3().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = is_inline;
    })
}

/// `{group, version, kind}` as OpenAPI extensions have it.
pub fn identity(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.name})
}

fn policy(kind: &Kind) -> Value {
    let spec = match kind.name {
        "HTTPRoute" => inline::<super::http_route::HttpRouteSpec>(),
        "BackendTrafficPolicy" => {
            inline::<super::backend_traffic_policy::BackendTrafficPolicySpec>()
        }
        "PeerAuthentication" => inline::<super::peer_authentication::PeerAuthenticationSpec>(),
        _ => inline::<super::telemetry::TelemetrySpec>(),
    };
    let description = spec.get("description").cloned().unwrap_or(Value::Null);
    json!({
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The group and version of the kind."},
            "kind": {"type": "string", "description": "The name of the kind."},
            "metadata": {"$ref": format!("{REFERENCE_PREFIX}{OBJECT_META}")},
            "spec": spec,
            "status": {
                "type": "object",
                "description": "What became of it.",
                "x-kubernetes-preserve-unknown-fields": true,
            },
        },
    })
}

fn inline<T: JsonSchema>() -> Value {
    let generator: SchemaGenerator = settings(true).into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    if let Value::Object(schema) = &mut schema {
        schema.remove("title");
    }
    flatten_enums(&mut schema);
    schema
}

/// Words with a description each come as one alternative per word; readers of OpenAPI expect a plain `enum`.
fn flatten_enums(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(flatten_enums);
            if let Some(words) = fields.get("oneOf").and_then(words) {
                fields.remove("oneOf");
                fields.insert("type".into(), json!("string"));
                fields.insert("enum".into(), words);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(flatten_enums),
        _ => {}
    }
}

fn words(alternatives: &Value) -> Option<Value> {
    let mut words = Vec::new();
    for alternative in alternatives.as_array()? {
        match (&alternative["const"], &alternative["enum"]) {
            (Value::String(word), _) => words.push(json!(word)),
            (_, Value::Array(some)) => words.extend(some.iter().cloned()),
            _ => return None,
        }
    }
    words.retain(Value::is_string);
    Some(Value::Array(words))
}

/// Publishes the table of list types in the words that Kubernetes' schemas have for it.
fn mark_lists(name: &str, schema: &mut Value) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    for (field, property) in properties {
        let Value::Object(property) = property else {
            continue;
        };
        match list_type(name, field) {
            Some(ListType::Map(keys)) => mark_map(property, keys),
            Some(ListType::Set) => {
                property.insert("x-kubernetes-list-type".into(), json!("set"));
                property.insert("x-kubernetes-patch-strategy".into(), json!("merge"));
            }
            None => {}
        }
    }
}

fn mark_map(property: &mut Map<String, Value>, keys: &[&str]) {
    property.insert("x-kubernetes-list-type".into(), json!("map"));
    property.insert("x-kubernetes-list-map-keys".into(), json!(keys));
    property.insert("x-kubernetes-patch-strategy".into(), json!("merge"));
    property.insert("x-kubernetes-patch-merge-key".into(), json!(keys[0]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    #[test]
    fn every_kind_has_a_schema_with_metadata() {
        for kind in kinds::ALL {
            let schema = of(kind);
            assert!(
                schema["properties"]["metadata"].is_object(),
                "{kind}: {schema}"
            );
        }
    }

    #[test]
    fn every_reference_leads_to_a_definition() {
        let text = serde_json::to_string(definitions()).expect("json");
        for reference in text.split(REFERENCE_PREFIX).skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(definitions().contains_key(name), "{name}");
        }
    }

    #[test]
    fn containers_are_told_apart_by_name() {
        let schema = &definitions()["io.k8s.api.core.v1.PodSpec"];

        assert_eq!(
            schema["properties"]["containers"]["x-kubernetes-list-map-keys"],
            json!(["name"])
        );
    }
}
