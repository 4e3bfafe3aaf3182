//! Deleting one object, or all that are selected.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::checks;
use crate::admission::{self, Deletion, Intent, Propagation};
use crate::api::Api;
use crate::api::read;
use crate::api::request::Request;
use crate::api::response;
use crate::kinds::Kind;
use crate::refusal::Refusal;
use crate::store::{Name, Object, Outcome};

/// Deletes an object: answers with a `Status` where it is gone, with the object where it has to end first.
pub(in crate::api) async fn delete(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
    options: &Value,
) -> Result<Response, Refusal> {
    let deletion = deletion(request, options)?;
    let preconditions = json!({"metadata": options["preconditions"]});
    let wanted = name.clone();
    let committed = admission::write(&api.store, intent(request, options)?, move |transaction| {
        let object = super::find(transaction, kind, &wanted)?;
        checks::check_precondition(&object, &preconditions)?;
        let last = admission::delete(transaction, &object, deletion)?;
        Ok((last, wanted))
    })
    .await?;
    let (last, wanted) = committed.result;
    let is_gone = api.store.snapshot().find(kind, &wanted).is_none();
    let mut response = if is_gone {
        response::json(StatusCode::OK, &success(kind, &last))
    } else {
        read::one(request, kind, &last, StatusCode::OK)
    };
    response::warn(response.headers_mut(), &committed.warnings);
    Ok(response)
}

/// Deletes all objects that the caller selects.
pub(in crate::api) async fn delete_collection(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    namespace: Option<&str>,
    options: &Value,
) -> Result<Response, Refusal> {
    let deletion = deletion(request, options)?;
    let selector = read::selector(request)?;
    let namespace = namespace.map(str::to_owned);
    let committed = admission::write(&api.store, intent(request, options)?, move |transaction| {
        let objects: Vec<Arc<Object>> = transaction
            .state()
            .list(kind, namespace.as_deref())
            .filter(|object| selector.matches(object))
            .map(Arc::clone)
            .collect();
        objects
            .iter()
            .map(|object| admission::delete(transaction, object, deletion))
            .collect::<Result<Vec<_>, Refusal>>()
    })
    .await?;
    let items = committed.result.iter().map(|object| object.value());
    let list = read::List::of(kind, items, json!({}));
    let mut response = response::json(StatusCode::OK, &list);
    response::warn(response.headers_mut(), &committed.warnings);
    Ok(response)
}

fn intent(request: &Request, options: &Value) -> Result<Intent, Refusal> {
    let is_dry = options["dryRun"]
        .as_array()
        .is_some_and(|runs| !runs.is_empty());
    let outcome = match checks::outcome(request)? {
        Outcome::Commit if is_dry => Outcome::Discard,
        outcome => outcome,
    };
    Ok(Intent {
        author: request.author(),
        outcome,
    })
}

/// From the body, or from the query where it has none.
fn deletion(request: &Request, options: &Value) -> Result<Deletion, Refusal> {
    let given = options["propagationPolicy"]
        .as_str()
        .or_else(|| request.query.text("propagationPolicy"));
    let propagation = match given {
        None | Some("Background") => Propagation::Background,
        Some("Foreground") => Propagation::Foreground,
        Some("Orphan") => Propagation::Orphan,
        Some(other) => {
            return Err(Refusal::BadRequest(format!(
                "propagationPolicy: {other:?} is none of Background, Foreground, Orphan"
            )));
        }
    };
    let from_query = request.query.number("gracePeriodSeconds")?;
    let from_query = from_query.and_then(|seconds| i64::try_from(seconds).ok());
    Ok(Deletion {
        grace_seconds: options["gracePeriodSeconds"].as_i64().or(from_query),
        propagation,
    })
}

fn success(kind: &Kind, object: &Object) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": object.name().name,
            "group": kind.group,
            "kind": kind.plural,
            "uid": object.uid(),
        },
    })
}
