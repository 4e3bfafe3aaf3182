//! Creating, replacing, patching and deleting, and the status and scale below objects.

mod checks;
mod delete;
mod scale;

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

pub(super) use checks::WriteOptions;
pub(super) use delete::{delete, delete_collection};
pub(super) use scale::{get_scale, patch_scale, replace_scale};

use super::Api;
use super::apply;
use super::patch::{PatchType, patched};
use super::read;
use super::request::Request;
use super::response;
use crate::admission;
use crate::kinds::Kind;
use crate::refusal::Refusal;
use crate::store::{Committed, Name, Object, Transaction};

/// What a write came to: the object, and whether it is new.
type Written = (Arc<Object>, StatusCode);

/// Creates an object.
pub(super) async fn create(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    namespace: Option<&str>,
    mut value: Value,
) -> Result<Response, Refusal> {
    let options = WriteOptions::of(request, None)?;
    checks::place(kind, &mut value, namespace, None)?;
    let committed = admission::write(&api.store, options.intent(), move |transaction| {
        checks::check(transaction, kind, &mut value, &options)?;
        apply::track(kind, None, &mut value, &options.manager(transaction));
        let object = admission::create(transaction, kind, value)?;
        Ok((object, StatusCode::CREATED))
    })
    .await?;
    Ok(answer(request, kind, committed))
}

/// Replaces an object; creates it where it is not there and the caller did not expect it to be.
pub(super) async fn replace(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
    mut value: Value,
) -> Result<Response, Refusal> {
    let options = WriteOptions::of(request, None)?;
    checks::place(kind, &mut value, Some(&name.namespace), Some(&name.name))?;
    let name = name.clone();
    let committed = admission::write(&api.store, options.intent(), move |transaction| {
        checks::check(transaction, kind, &mut value, &options)?;
        let existing = find(transaction, kind, &name)?;
        update(transaction, &existing, value, &options)
    })
    .await?;
    Ok(answer(request, kind, committed))
}

/// Patches an object; server-side apply creates it where it is not there.
pub(super) async fn patch(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
    change: Value,
) -> Result<Response, Refusal> {
    let how = PatchType::of(&request.content_type())?;
    let options = WriteOptions::of(request, None)?;
    let name = name.clone();
    let committed = admission::write(&api.store, options.intent(), move |transaction| {
        if how == PatchType::Apply {
            return apply_one(transaction, kind, &name, change, &options);
        }
        let existing = find(transaction, kind, &name)?;
        let mut value = patched(kind, existing.value(), &change, how)?;
        checks::place(kind, &mut value, Some(&name.namespace), Some(&name.name))?;
        checks::check(transaction, kind, &mut value, &options)?;
        update(transaction, &existing, value, &options)
    })
    .await?;
    Ok(answer(request, kind, committed))
}

/// Server-side apply of one object.
pub(super) fn apply_one(
    transaction: &mut Transaction,
    kind: &'static Kind,
    name: &Name,
    mut config: Value,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    checks::place(kind, &mut config, Some(&name.namespace), Some(&name.name))?;
    if !config["metadata"]["managedFields"].is_null() {
        return Err(Refusal::BadRequest(
            "metadata.managedFields must be nil in what is applied".to_owned(),
        ));
    }
    checks::check_partial(transaction, kind, &mut config, options)?;
    let manager = options.manager(transaction);
    let existing = transaction.state().find(kind, name).map(Arc::clone);
    let live = existing.as_ref().map(|object| object.value());
    let mut value = apply::apply(kind, live, &config, &manager, options.is_forced)?;
    checks::check(transaction, kind, &mut value, options)?;
    match existing {
        None => Ok((
            admission::create(transaction, kind, value)?,
            StatusCode::CREATED,
        )),
        Some(existing) => {
            checks::check_precondition(&existing, &config)?;
            let object = admission::replace(transaction, &existing, value)?;
            Ok((object, StatusCode::OK))
        }
    }
}

/// Replaces an object's status.
pub(super) async fn replace_status(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
    mut value: Value,
) -> Result<Response, Refusal> {
    let options = WriteOptions::of(request, Some("status"))?;
    checks::place(kind, &mut value, Some(&name.namespace), Some(&name.name))?;
    let name = name.clone();
    let committed = admission::write(&api.store, options.intent(), move |transaction| {
        let existing = find(transaction, kind, &name)?;
        checks::check_precondition(&existing, &value)?;
        update_status(transaction, &existing, &value, &options)
    })
    .await?;
    Ok(answer(request, kind, committed))
}

/// Patches an object's status.
pub(super) async fn patch_status(
    api: &Api,
    request: &Request,
    kind: &'static Kind,
    name: &Name,
    change: Value,
) -> Result<Response, Refusal> {
    let how = PatchType::of(&request.content_type())?;
    let options = WriteOptions::of(request, Some("status"))?;
    let name = name.clone();
    let committed = admission::write(&api.store, options.intent(), move |transaction| {
        let existing = find(transaction, kind, &name)?;
        if how == PatchType::Apply {
            let manager = options.manager(transaction);
            let live = Some(existing.value());
            let value = apply::apply(kind, live, &change, &manager, options.is_forced)?;
            return store_status(transaction, &existing, value, &options);
        }
        let value = patched(kind, existing.value(), &change, how)?;
        checks::check_precondition(&existing, &value)?;
        update_status(transaction, &existing, &value, &options)
    })
    .await?;
    Ok(answer(request, kind, committed))
}

fn find(
    transaction: &Transaction,
    kind: &'static Kind,
    name: &Name,
) -> Result<Arc<Object>, Refusal> {
    transaction
        .state()
        .find(kind, name)
        .map(Arc::clone)
        .ok_or_else(|| Refusal::not_found(kind, &name.name))
}

fn update(
    transaction: &mut Transaction,
    existing: &Arc<Object>,
    mut value: Value,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    checks::check_precondition(existing, &value)?;
    let manager = options.manager(transaction);
    apply::track(
        existing.kind(),
        Some(existing.value()),
        &mut value,
        &manager,
    );
    let object = admission::replace(transaction, existing, value)?;
    Ok((object, StatusCode::OK))
}

fn update_status(
    transaction: &mut Transaction,
    existing: &Arc<Object>,
    value: &Value,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    let mut after = existing.value().clone();
    after["status"] = value["status"].clone();
    crate::validation::schema::strip_nulls(&mut after);
    let manager = options.manager(transaction);
    apply::track(
        existing.kind(),
        Some(existing.value()),
        &mut after,
        &manager,
    );
    store_status(transaction, existing, after, options)
}

fn store_status(
    transaction: &mut Transaction,
    existing: &Arc<Object>,
    mut value: Value,
    options: &WriteOptions,
) -> Result<Written, Refusal> {
    checks::check(transaction, existing.kind(), &mut value, options)?;
    let status = value["status"].take();
    let managed_fields = value["metadata"]["managedFields"].take();
    let object = admission::replace_status(transaction, existing, status, managed_fields);
    Ok((object, StatusCode::OK))
}

fn answer(request: &Request, kind: &'static Kind, committed: Committed<Written>) -> Response {
    let (object, code) = committed.result;
    let mut response = read::one(request, kind, &object, code);
    response::warn(response.headers_mut(), &committed.warnings);
    response
}
