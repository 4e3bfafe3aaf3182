//! The one way into the store: what every write of a resource goes through, whoever asks.
//!
//! A write fills in defaults and addresses, refuses what may not change, and is settled before it is committed:
//! dependents of what is gone go too, endpoints follow pods and services, the whole is validated, and a revision is
//! made. All of that is one transaction.

mod addresses;
mod defaults;
mod deletion;
mod endpoints;
mod garbage;
mod immutable;

use std::sync::Arc;

use serde_json::{Value, json};

pub use deletion::{Deletion, Propagation, delete};

use crate::kinds::{self, Kind, Subresource};
use crate::refusal::Refusal;
use crate::revisions::{self, Author};
use crate::store::{Committed, Name, Object, Outcome, Store, Transaction};
use crate::validation;

/// The namespace that is always there.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Who writes, and whether it is meant.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Named in the revision.
    pub author: Author,
    /// `Discard` for a dry run: everything is checked, nothing is kept.
    pub outcome: Outcome,
}

impl Intent {
    /// A write by a part of weft itself.
    pub fn of_weft() -> Self {
        Self {
            author: Author {
                user: "weft".to_owned(),
                manager: "weft".to_owned(),
            },
            outcome: Outcome::Commit,
        }
    }
}

/// Runs a change of resources as one transaction, settled, validated and numbered.
pub async fn write<T, F>(store: &Store, intent: Intent, change: F) -> Result<Committed<T>, Refusal>
where
    F: FnOnce(&mut Transaction) -> Result<T, Refusal> + Send + 'static,
    T: Send + 'static,
{
    store
        .transact(move |transaction| {
            let result = change(transaction)?;
            garbage::settle(transaction);
            endpoints::settle(transaction);
            validation::check(transaction)?;
            let revision = revisions::of(transaction, &intent.author);
            Ok((result, intent.outcome, revision))
        })
        .await
}

/// Makes what is always there.
pub async fn initialize(store: &Store) -> Result<(), Refusal> {
    let name = Name::new("", DEFAULT_NAMESPACE);
    if store.snapshot().find(&kinds::NAMESPACE, &name).is_some() {
        return Ok(());
    }
    write(store, Intent::of_weft(), |transaction| {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": DEFAULT_NAMESPACE},
        });
        create(transaction, &kinds::NAMESPACE, namespace)
    })
    .await?;
    Ok(())
}

/// Creates an object.
pub fn create(
    transaction: &mut Transaction,
    kind: &'static Kind,
    mut value: Value,
) -> Result<Arc<Object>, Refusal> {
    generate_name(transaction, kind, &mut value);
    let object = Object::new(kind, value.clone());
    let name = object.name();
    check_metadata(kind, &value)?;
    if transaction.state().find(kind, name).is_some() {
        return Err(Refusal::AlreadyExists {
            resource: kind.resource(),
            name: name.name.clone(),
        });
    }
    check_namespace(transaction, kind, name)?;
    check_owners(transaction, &object)?;
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        remove(&mut value, field);
    }
    if kind.has(Subresource::Status) {
        defaults::reset_status(kind, &mut value);
    }
    defaults::fill(kind, &mut value);
    addresses::assign(transaction.state(), kind, &mut value, None)?;
    Ok(transaction.put(kind, value))
}

/// Replaces an object, but for its status where that is a subresource. Ends it where it was waiting for its
/// last finalizer.
pub fn replace(
    transaction: &mut Transaction,
    existing: &Arc<Object>,
    mut value: Value,
) -> Result<Arc<Object>, Refusal> {
    let kind = existing.kind();
    check_metadata(kind, &value)?;
    if kind.has(Subresource::Status) {
        value["status"] = existing.value()["status"].clone();
        validation::schema::strip_nulls(&mut value);
    }
    defaults::fill(kind, &mut value);
    addresses::assign(transaction.state(), kind, &mut value, Some(existing))?;
    immutable::check(existing, &value)?;
    let object = transaction.put(kind, value);
    Ok(deletion::finish(transaction, object))
}

/// Replaces an object's status alone.
pub fn replace_status(
    transaction: &mut Transaction,
    existing: &Arc<Object>,
    status: Value,
    managed_fields: Value,
) -> Arc<Object> {
    let mut value = existing.value().clone();
    value["status"] = status;
    if !managed_fields.is_null() {
        value["metadata"]["managedFields"] = managed_fields;
    }
    validation::schema::strip_nulls(&mut value);
    transaction.put(existing.kind(), value)
}

fn check_metadata(kind: &'static Kind, value: &Value) -> Result<(), Refusal> {
    let causes = validation::check_metadata(kind, &value["metadata"]);
    if causes.is_empty() {
        return Ok(());
    }
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    Err(Refusal::invalid(kind, name, causes))
}

fn check_namespace(
    transaction: &Transaction,
    kind: &'static Kind,
    name: &Name,
) -> Result<(), Refusal> {
    if !kind.is_namespaced {
        return Ok(());
    }
    let namespace = transaction
        .state()
        .find(&kinds::NAMESPACE, &Name::new("", &name.namespace));
    match namespace {
        None => Err(Refusal::not_found(&kinds::NAMESPACE, &name.namespace)),
        Some(namespace) if namespace.is_deleting() => Err(Refusal::Forbidden(format!(
            "{} {:?} is forbidden: unable to create new content in namespace {} because it is being terminated",
            kind.resource(),
            name.name,
            name.namespace
        ))),
        Some(_) => Ok(()),
    }
}

/// An object whose owner is gone would be collected at once; its creator should hear of it.
fn check_owners(transaction: &Transaction, object: &Object) -> Result<(), Refusal> {
    let owners: Vec<&str> = object.owners().collect();
    let is_orphan = !owners.is_empty()
        && !transaction
            .state()
            .all()
            .any(|other| owners.contains(&other.uid()));
    if !is_orphan {
        return Ok(());
    }
    Err(Refusal::Conflict {
        resource: object.kind().resource(),
        name: object.name().name.clone(),
        why: "its owner does not exist any more".to_owned(),
    })
}

/// `generateName` and five letters, without vowels and look-alikes as Kubernetes does it.
fn generate_name(transaction: &Transaction, kind: &Kind, value: &mut Value) {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const ATTEMPTS: usize = 8;
    if value["metadata"]["name"]
        .as_str()
        .is_some_and(|name| !name.is_empty())
    {
        return;
    }
    let Some(prefix) = value["metadata"]["generateName"]
        .as_str()
        .map(str::to_owned)
    else {
        return;
    };
    let namespace = value["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for _ in 0..ATTEMPTS {
        let random: [u8; 5] = rand::random();
        let suffix: String = random
            .iter()
            .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
            .collect();
        let name = format!("{prefix}{suffix}");
        let is_free = transaction
            .state()
            .find(kind, &Name::new(&namespace, &name))
            .is_none();
        value["metadata"]["name"] = json!(name);
        if is_free {
            return;
        }
    }
}

fn remove(value: &mut Value, field: &str) {
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove(field);
    }
}
