//! What a write must be before anything is done with it.

use serde_json::{Value, json};

use super::super::apply::Manager;
use super::super::request::Request;
use crate::admission::Intent;
use crate::kinds::{Kind, Role};
use crate::refusal::{Cause, Refusal};
use crate::revisions::Author;
use crate::store::{Object, Outcome, Transaction, seconds};
use crate::validation::schema;

/// What becomes of fields that a workload does not have. In policies they are always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// What a caller wants of a write besides the write itself.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    author: Author,
    outcome: Outcome,
    validation: FieldValidation,
    pub(crate) is_forced: bool,
    subresource: Option<&'static str>,
}

impl WriteOptions {
    pub(crate) fn of(
        request: &Request,
        subresource: Option<&'static str>,
    ) -> Result<Self, Refusal> {
        let validation = match request.query.text("fieldValidation") {
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some("Warn") | None => FieldValidation::Warn,
            Some(other) => {
                return Err(Refusal::BadRequest(format!(
                    "fieldValidation: {other:?} is none of Ignore, Warn, Strict"
                )));
            }
        };
        Ok(Self {
            author: request.author(),
            outcome: outcome(request)?,
            validation,
            is_forced: request.query.is_set("force"),
            subresource,
        })
    }

    pub(crate) fn intent(&self) -> Intent {
        Intent {
            author: self.author.clone(),
            outcome: self.outcome,
        }
    }

    pub(crate) fn manager(&self, transaction: &Transaction) -> Manager {
        Manager {
            name: self.author.manager.clone(),
            time: seconds(transaction.now()),
            subresource: self.subresource,
        }
    }
}

/// Whether it is meant, or a dry run.
pub(super) fn outcome(request: &Request) -> Result<Outcome, Refusal> {
    match request.query.text("dryRun") {
        None => Ok(Outcome::Commit),
        Some("All") => Ok(Outcome::Discard),
        Some(other) => Err(Refusal::BadRequest(format!("dryRun: {other:?} is not All"))),
    }
}

/// Makes sure that an object is what the path says, and is where it says.
pub(super) fn place(
    kind: &'static Kind,
    value: &mut Value,
    namespace: Option<&str>,
    name: Option<&str>,
) -> Result<(), Refusal> {
    let Some(object) = value.as_object_mut() else {
        return Err(Refusal::BadRequest("the body is no object".to_owned()));
    };
    for (field, expected) in [
        ("apiVersion", kind.api_version()),
        ("kind", kind.name.to_owned()),
    ] {
        let given = object.entry(field).or_insert_with(|| json!(expected));
        if *given != json!(expected) {
            return Err(Refusal::BadRequest(format!(
                "the {field} in the data ({given}) does not match the expected {field} ({expected:?})"
            )));
        }
    }
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else {
        return Err(Refusal::BadRequest("metadata is no object".to_owned()));
    };
    if !kind.is_namespaced {
        metadata.shift_remove("namespace");
    } else {
        let namespace = namespace.unwrap_or(crate::admission::DEFAULT_NAMESPACE);
        fix(metadata, "namespace", namespace)?;
    }
    match name {
        Some(name) => fix(metadata, "name", name),
        None => Ok(()),
    }
}

fn fix(
    metadata: &mut serde_json::Map<String, Value>,
    field: &str,
    expected: &str,
) -> Result<(), Refusal> {
    match metadata.get(field).and_then(Value::as_str) {
        Some(given) if !given.is_empty() && given != expected => Err(Refusal::BadRequest(format!(
            "the {field} of the provided object does not match the {field} sent on the request: {given:?} is not {expected:?}"
        ))),
        _ => {
            metadata.insert(field.to_owned(), json!(expected));
            Ok(())
        }
    }
}

/// Checks an object against its schema; takes out what it should not have where that is not an error.
pub(super) fn check(
    transaction: &mut Transaction,
    kind: &'static Kind,
    value: &mut Value,
    options: &WriteOptions,
) -> Result<(), Refusal> {
    check_fields(transaction, kind, value, options)?;
    let findings = schema::check(kind, value);
    refuse(kind, value, findings.causes)
}

/// The same for a part of an object, as server-side apply sends it: what is missing may be there already.
pub(super) fn check_partial(
    transaction: &mut Transaction,
    kind: &'static Kind,
    value: &mut Value,
    options: &WriteOptions,
) -> Result<(), Refusal> {
    check_fields(transaction, kind, value, options)
}

fn check_fields(
    transaction: &mut Transaction,
    kind: &'static Kind,
    value: &mut Value,
    options: &WriteOptions,
) -> Result<(), Refusal> {
    schema::strip_nulls(value);
    let findings = schema::check(kind, value);
    if findings.unknown.is_empty() {
        return Ok(());
    }
    if kind.role == Role::Policy || options.validation == FieldValidation::Strict {
        let unknown = findings.unknown.iter().map(schema::UnknownField::cause);
        let causes: Vec<Cause> = unknown.chain(findings.causes).collect();
        return refuse(kind, value, causes);
    }
    if options.validation == FieldValidation::Warn {
        for field in &findings.unknown {
            transaction.warn(field.to_string());
        }
    }
    schema::prune(kind, value);
    Ok(())
}

fn refuse(kind: &'static Kind, value: &Value, causes: Vec<Cause>) -> Result<(), Refusal> {
    if causes.is_empty() {
        return Ok(());
    }
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    Err(Refusal::invalid(kind, name, causes))
}

/// A write that names a version, or a uid, is on top of that one or none.
pub(super) fn check_precondition(existing: &Object, value: &Value) -> Result<(), Refusal> {
    let metadata = &value["metadata"];
    let name = &existing.name().name;
    let is_outdated = metadata["resourceVersion"].as_str().is_some_and(|version| {
        !version.is_empty() && version != existing.resource_version().to_string()
    });
    let is_other = metadata["uid"]
        .as_str()
        .is_some_and(|uid| !uid.is_empty() && uid != existing.uid());
    if is_outdated || is_other {
        return Err(Refusal::modified(existing.kind(), name));
    }
    Ok(())
}
