//! The history: numbered revisions, and one of them with all that it changed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::Uri;
use serde_json::{Value, json};

use crate::api::Api;
use crate::api::query::Query;
use crate::refusal::Refusal;
use crate::revisions::Revision;

/// How many are listed where the caller does not say, and at most.
const DEFAULT: u64 = 50;
const MOST: u64 = 1000;

pub(super) async fn list(State(api): State<Arc<Api>>, uri: Uri) -> Result<Json<Value>, Refusal> {
    let limit = Query::of(&uri)?
        .number("limit")?
        .unwrap_or(DEFAULT)
        .min(MOST);
    let revisions = api
        .store
        .revisions(usize::try_from(limit).unwrap_or(usize::MAX))
        .await?;
    let listed: Vec<Value> = revisions.iter().map(brief).collect();
    Ok(Json(
        json!({"revision": api.store.snapshot().revision(), "revisions": listed}),
    ))
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Path(number): Path<String>,
) -> Result<Json<Revision>, Refusal> {
    let missing = || Refusal::NotFound {
        resource: "revisions".to_owned(),
        name: number.clone(),
    };
    let parsed: u64 = number.parse().map_err(|_| missing())?;
    let revision = api.store.revision(parsed).await?.ok_or_else(missing)?;
    Ok(Json(revision))
}

/// Without the objects: those are in the revision itself.
fn brief(revision: &Revision) -> Value {
    let changes: Vec<Value> = revision
        .changes
        .iter()
        .map(|change| {
            json!({
                "operation": change.operation,
                "apiVersion": change.api_version,
                "kind": change.kind,
                "namespace": change.namespace,
                "name": change.name,
            })
        })
        .collect();
    json!({
        "number": revision.number,
        "time": revision.time,
        "author": revision.author,
        "manager": revision.manager,
        "summary": revision.summary,
        "changes": changes,
    })
}
