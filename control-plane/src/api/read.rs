//! Getting and listing.

use std::sync::Arc;

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::request::Request;
use super::response;
use super::selector::Selector;
use super::table::table;
use crate::kinds::Kind;
use crate::refusal::Refusal;
use crate::store::{Name, Object};

/// One object.
pub(super) fn get(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
) -> Result<Response, Refusal> {
    let snapshot = api.store.snapshot();
    let object = snapshot
        .find(kind, name)
        .ok_or_else(|| Refusal::not_found(kind, &name.name))?;
    Ok(one(request, kind, object, StatusCode::OK))
}

/// An object as the caller likes it.
pub(super) fn one(
    request: &Request,
    kind: &'static Kind,
    object: &Object,
    code: StatusCode,
) -> Response {
    if request.wants_table() {
        let metadata = json!({"resourceVersion": object.resource_version().to_string()});
        let table = table(kind, std::iter::once(object), &metadata, &request.query);
        return response::json(code, &table);
    }
    response::json(code, object.value())
}

/// The objects of a kind, page by page where a limit is given.
///
/// A next page is read from what is there by then, not from what was there at the first: no object that stays is
/// missed or seen twice.
pub(super) fn list(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    namespace: Option<&str>,
) -> Result<Response, Refusal> {
    let selector = selector(request)?;
    let limit = request.query.number("limit")?.filter(|limit| *limit > 0);
    let after = request
        .query
        .text("continue")
        .map(decode_continue)
        .transpose()?;
    let snapshot = api.store.snapshot();
    let mut found: Vec<&Arc<Object>> = snapshot
        .list(kind, namespace)
        .filter(|object| after.as_ref().is_none_or(|after| object.name() > after))
        .filter(|object| selector.matches(object))
        .collect();
    let mut metadata = json!({"resourceVersion": snapshot.resource_version().to_string()});
    if let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok())
        && found.len() > limit
    {
        metadata["remainingItemCount"] = json!(found.len() - limit);
        found.truncate(limit);
        if let Some(last) = found.last() {
            metadata["continue"] = json!(encode_continue(last.name()));
        }
    }
    if request.wants_table() {
        let objects = found.into_iter().map(|object| &**object);
        let table = table(kind, objects, &metadata, &request.query);
        return Ok(response::json(StatusCode::OK, &table));
    }
    let items = found.into_iter().map(|object| object.value());
    Ok(response::json(
        StatusCode::OK,
        &List::of(kind, items, metadata),
    ))
}

/// A list of objects. They are written as they are stored, without a copy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List<'a> {
    kind: String,
    api_version: String,
    metadata: Value,
    items: Vec<&'a Value>,
}

impl<'a> List<'a> {
    pub(super) fn of(kind: &Kind, items: impl Iterator<Item = &'a Value>, metadata: Value) -> Self {
        Self {
            kind: format!("{}List", kind.name),
            api_version: kind.api_version(),
            metadata,
            items: items.collect(),
        }
    }
}

/// What the caller selects by.
pub(super) fn selector(request: &Request) -> Result<Selector, Refusal> {
    Selector::parse(
        request.query.text("labelSelector"),
        request.query.text("fieldSelector"),
    )
}

fn encode_continue(name: &Name) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}\0{}", name.namespace, name.name))
}

fn decode_continue(token: &str) -> Result<Name, Refusal> {
    let parse = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let (namespace, name) = text.split_once('\0')?;
        Some(Name::new(namespace, name))
    };
    parse().ok_or_else(|| Refusal::BadRequest("continue key is not valid".to_owned()))
}
