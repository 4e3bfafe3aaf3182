//! Many objects applied at once: all of them or none, and one revision. Order does not matter: what refers to
//! each other is validated when all are there.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::{self, DEFAULT_NAMESPACE};
use crate::api::query::Query;
use crate::api::request::Request;
use crate::api::write::{WriteOptions, apply_one};
use crate::api::{Api, body, response};
use crate::auth::Caller;
use crate::kinds::{self, Kind};
use crate::refusal::Refusal;
use crate::store::{Name, Transaction};

/// No set is larger.
const MOST_OBJECTS: usize = 10_000;

/// `POST /weft/v1/apply` with `{"items": […]}`; `fieldManager`, `force` and `dryRun` as in server-side apply.
pub(super) async fn apply(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    http: HttpRequest,
) -> Result<Response, Refusal> {
    let (parts, content) = http.into_parts();
    let request = Request {
        query: Query::of(&parts.uri)?,
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        caller,
    };
    let objects = objects_of(&request, content).await?;
    let options = WriteOptions::of(&request, None)?;
    let committed = admission::write(&api.store, options.intent(), move |transaction| {
        // Namespaces first: the others are refused where theirs does not exist yet.
        let (first, rest): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .partition(|(kind, _, _)| **kind == kinds::NAMESPACE);
        first
            .into_iter()
            .chain(rest)
            .map(|(kind, name, config)| apply_object(transaction, kind, &name, config, &options))
            .collect::<Result<Vec<Value>, Refusal>>()
    })
    .await?;
    let body = json!({
        "items": committed.result,
        "revision": committed.revision,
        "warnings": committed.warnings,
    });
    let mut response = response::json(StatusCode::OK, &body);
    response::warn(response.headers_mut(), &committed.warnings);
    Ok(response)
}

fn apply_object(
    transaction: &mut Transaction,
    kind: &'static Kind,
    name: &Name,
    config: Value,
    options: &WriteOptions,
) -> Result<Value, Refusal> {
    let before = transaction
        .state()
        .find(kind, name)
        .map(|object| object.resource_version());
    let (object, _) = apply_one(transaction, kind, name, config, options)?;
    let result = match before {
        None => "created",
        Some(version) if version == object.resource_version() => "unchanged",
        Some(_) => "configured",
    };
    Ok(json!({"result": result, "object": object.value()}))
}

async fn objects_of(
    request: &Request,
    content: Body,
) -> Result<Vec<(&'static Kind, Name, Value)>, Refusal> {
    let bytes = body::read(content, body::SET_BYTES).await?;
    let mut value = body::decode(request, &bytes)?;
    let Value::Array(items) = value["items"].take() else {
        return Err(Refusal::BadRequest(
            "the body has no list of items".to_owned(),
        ));
    };
    if items.len() > MOST_OBJECTS {
        return Err(Refusal::BadRequest(format!(
            "more than {MOST_OBJECTS} objects at once"
        )));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| identify(index, item))
        .collect()
}

fn identify(index: usize, item: Value) -> Result<(&'static Kind, Name, Value), Refusal> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&item["apiVersion"]), text(&item["kind"]));
    let Some(kind) = kinds::by_name(&version, &kind).filter(|kind| kind.is_writable()) else {
        return Err(Refusal::BadRequest(format!(
            "items[{index}]: no matches for kind {kind:?} in version {version:?}"
        )));
    };
    let mut namespace = text(&item["metadata"]["namespace"]);
    if kind.is_namespaced && namespace.is_empty() {
        namespace = DEFAULT_NAMESPACE.to_owned();
    }
    if !kind.is_namespaced {
        namespace.clear();
    }
    let name = Name::new(namespace, text(&item["metadata"]["name"]));
    Ok((kind, name, item))
}
