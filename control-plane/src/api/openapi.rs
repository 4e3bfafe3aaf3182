//! The schemas of all kinds as OpenAPI 3, one document for each group, and OpenAPI 2, one for all.
//!
//! Paths are told as far as clients read them: which verbs take which parameters. Schemas are those that validation
//! itself walks.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::kinds::{self, Kind, schema};
use crate::refusal::Refusal;

/// A rendered document: where it is, its bytes, and what they hash to.
struct Document {
    group: String,
    body: Bytes,
    hash: String,
}

static DOCUMENTS: LazyLock<Vec<Document>> = LazyLock::new(|| {
    let mut versions: Vec<(&str, &str)> = Vec::new();
    for kind in kinds::ALL {
        if !versions.contains(&(kind.group, kind.version)) {
            versions.push((kind.group, kind.version));
        }
    }
    versions
        .into_iter()
        .map(|(group, version)| render(group, version))
        .collect()
});

static SWAGGER: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(swagger().to_string()));

/// Where the documents are.
pub(super) async fn index() -> Response {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|document| {
            let Document { group, hash, .. } = document;
            let url = format!("/openapi/v3/{group}?hash={hash}");
            (group.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    super::response::json(StatusCode::OK, &json!({"paths": paths}))
}

/// The document of one group.
pub(super) async fn version_3(Path(group): Path<String>) -> Result<Response, Refusal> {
    let document = DOCUMENTS
        .iter()
        .find(|document| document.group == group)
        .ok_or_else(|| Refusal::NotFound {
            resource: "documents".to_owned(),
            name: group,
        })?;
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (ETAG, document.hash.as_str()),
    ];
    Ok((headers, document.body.clone()).into_response())
}

/// The document of everything.
pub(super) async fn version_2(headers: HeaderMap) -> Result<Response, Refusal> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("*/*");
    if !accept.contains("json") && !accept.contains('*') {
        return Err(Refusal::NotFound {
            resource: "documents".to_owned(),
            name: format!(
                "OpenAPI 2 as {accept}; it is served as application/json, and OpenAPI 3 at /openapi/v3"
            ),
        });
    }
    Ok(([(CONTENT_TYPE, "application/json")], SWAGGER.clone()).into_response())
}

fn render(group: &str, version: &str) -> Document {
    let kinds: Vec<&'static Kind> = kinds::ALL
        .into_iter()
        .filter(|kind| (kind.group, kind.version) == (group, version))
        .collect();
    let mut names = BTreeSet::new();
    for kind in &kinds {
        collect(&schema::name_of(kind), &mut names);
    }
    let schemas: Map<String, Value> = names
        .iter()
        .filter_map(|name| Some((name.clone(), schema::definitions().get(name)?.clone())))
        .collect();
    let mut paths = Map::new();
    for kind in kinds {
        let reference =
            json!({"$ref": format!("{}{}", schema::REFERENCE_PREFIX, schema::name_of(kind))});
        let content = json!({"application/json": {"schema": reference}});
        paths.extend(paths_of(kind, &content));
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "weft", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    });
    let body = Bytes::from(document.to_string());
    let hash = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let group = if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    };
    Document { group, body, hash }
}

/// The schemas that one needs, itself included.
fn collect(name: &str, names: &mut BTreeSet<String>) {
    let Some(definition) = schema::definitions().get(name) else {
        return;
    };
    if names.insert(name.to_owned()) {
        collect_references(definition, names);
    }
}

fn collect_references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let reference = fields.get("$ref").and_then(Value::as_str);
            if let Some(name) = reference.and_then(|it| it.strip_prefix(schema::REFERENCE_PREFIX)) {
                collect(name, names);
            }
            fields
                .values()
                .for_each(|field| collect_references(field, names));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_references(item, names)),
        _ => {}
    }
}

fn paths_of(kind: &Kind, content: &Value) -> Vec<(String, Value)> {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let collection = if kind.is_namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    };
    let answer = json!({"200": {"description": "OK", "content": content}});
    let operation = |action: &str, is_write: bool| {
        let mut operation = json!({
            "operationId": format!("{action}{}{}", kind.version, kind.name),
            "responses": answer,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": schema::identity(kind),
        });
        if is_write {
            operation["parameters"] = parameters();
            operation["requestBody"] = json!({"content": content, "required": true});
        }
        operation
    };
    let mut list = json!({"get": operation("list", false)});
    let mut object = json!({"get": operation("get", false)});
    if kind.is_writable() {
        list["post"] = operation("post", true);
        object["put"] = operation("put", true);
        object["patch"] = operation("patch", true);
        object["delete"] = operation("delete", false);
    }
    vec![
        (collection.clone(), list),
        (format!("{collection}/{{name}}"), object),
    ]
}

fn parameters() -> Value {
    let parameter = |name: &str, description: &str| {
        json!({
            "name": name,
            "in": "query",
            "description": description,
            "schema": {"type": "string", "uniqueItems": true},
        })
    };
    json!([
        parameter("dryRun", "All: everything is checked, nothing is kept."),
        parameter("fieldManager", "Who changes the fields."),
        parameter(
            "fieldValidation",
            "Ignore, Warn or Strict; policies are always Strict."
        ),
    ])
}

/// OpenAPI 2 keeps definitions elsewhere, and knows fewer words.
fn swagger() -> Value {
    let mut definitions: Map<String, Value> = schema::definitions()
        .iter()
        .map(|(name, definition)| (name.clone(), definition.clone()))
        .collect();
    definitions.values_mut().for_each(downgrade);
    json!({
        "swagger": "2.0",
        "info": {"title": "weft", "version": env!("CARGO_PKG_VERSION")},
        "paths": {},
        "definitions": definitions,
    })
}

fn downgrade(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("nullable");
            if let Some(Value::Array(parts)) = fields.get("allOf")
                && let [part] = parts.as_slice()
                && let Some(reference) = part.get("$ref").cloned()
            {
                fields.remove("allOf");
                fields.insert("$ref".to_owned(), reference);
            }
            if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                *reference = reference.replace(schema::REFERENCE_PREFIX, "#/definitions/");
            }
            fields.values_mut().for_each(downgrade);
        }
        Value::Array(items) => items.iter_mut().for_each(downgrade),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_holds_every_schema_that_it_refers_to() {
        for document in DOCUMENTS.iter() {
            let value: Value = serde_json::from_slice(&document.body).unwrap();
            let schemas = value["components"]["schemas"].as_object().unwrap();
            let mut names = BTreeSet::new();
            collect_references(&value, &mut names);
            for name in names {
                assert!(schemas.contains_key(&name), "{}: {name}", document.group);
            }
        }
    }

    #[test]
    fn openapi_2_refers_to_its_own_definitions_alone() {
        let text = std::str::from_utf8(&SWAGGER).unwrap();

        assert!(!text.contains(schema::REFERENCE_PREFIX));
    }
}
