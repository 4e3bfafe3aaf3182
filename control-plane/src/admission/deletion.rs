//! How objects go: at once, after their finalizers, or, for pods, after their containers have ended.

use std::sync::Arc;

use serde_json::{Value, json};

use super::DEFAULT_NAMESPACE;
use crate::kinds;
use crate::refusal::Refusal;
use crate::store::{Object, Transaction};

/// The finalizer that waits for dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// How an object is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// For pods: how long their containers may take; the pod's own where not given. 0 removes it at once.
    pub grace_seconds: Option<i64>,
    /// What becomes of its dependents.
    pub propagation: Propagation,
}

/// What becomes of dependents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    #[default]
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

impl Deletion {
    /// With the object's own time, dependents after it.
    pub const BACKGROUND: Self = Self {
        grace_seconds: None,
        propagation: Propagation::Background,
    };
}

/// Deletes an object, or marks it where others have to let go of it first. Returns the last that is known of it.
pub fn delete(
    transaction: &mut Transaction,
    object: &Arc<Object>,
    deletion: Deletion,
) -> Result<Arc<Object>, Refusal> {
    if *object.kind() == kinds::NAMESPACE && object.name().name == DEFAULT_NAMESPACE {
        return Err(Refusal::Forbidden(format!(
            "namespaces {DEFAULT_NAMESPACE:?} is forbidden: this namespace may not be deleted"
        )));
    }
    if deletion.propagation == Propagation::Orphan {
        orphan(transaction, object);
    }
    Ok(remove_or_mark(transaction, object, deletion))
}

/// Deletes without the rules for people: for what follows from something else.
pub(super) fn remove_or_mark(
    transaction: &mut Transaction,
    object: &Arc<Object>,
    deletion: Deletion,
) -> Arc<Object> {
    let grace = grace(object, deletion);
    let mut object = Arc::clone(object);
    if *object.kind() == kinds::NAMESPACE {
        object = empty_namespace(transaction, &object);
    }
    if deletion.propagation == Propagation::Foreground && !has_finalizer(&object, FOREGROUND) {
        object = add_foreground(transaction, &object);
    }
    if grace > 0 || has_finalizers(&object) || *object.kind() == kinds::NAMESPACE {
        let is_sooner = object.value()["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .is_none_or(|current| grace < current);
        if object.is_deleting() && !is_sooner {
            return object;
        }
        return transaction.mark_deleting(&object, grace);
    }
    let (kind, name) = (object.kind(), object.name().clone());
    transaction.remove(kind, &name).unwrap_or(object)
}

/// Removes an object that waits for nothing any more.
pub(super) fn finish(transaction: &mut Transaction, object: Arc<Object>) -> Arc<Object> {
    let is_pod_in_grace = *object.kind() == kinds::POD
        && object.value()["metadata"]["deletionGracePeriodSeconds"] != json!(0);
    if !object.is_deleting()
        || has_finalizers(&object)
        || is_pod_in_grace
        || *object.kind() == kinds::NAMESPACE
    {
        return object;
    }
    let (kind, name) = (object.kind(), object.name().clone());
    transaction.remove(kind, &name).unwrap_or(object)
}

fn grace(object: &Object, deletion: Deletion) -> i64 {
    if *object.kind() != kinds::POD {
        return 0;
    }
    let own = object.value()["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(30);
    deletion.grace_seconds.unwrap_or(own).max(0)
}

pub(super) fn has_finalizers(object: &Object) -> bool {
    object.value()["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty())
}

fn has_finalizer(object: &Object, name: &str) -> bool {
    let finalizers = object.value()["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == name))
}

fn add_foreground(transaction: &mut Transaction, object: &Object) -> Arc<Object> {
    let mut value = object.value().clone();
    let finalizers = &mut value["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(finalizers) => finalizers.push(json!(FOREGROUND)),
        None => *finalizers = json!([FOREGROUND]),
    }
    transaction.put(object.kind(), value)
}

fn empty_namespace(transaction: &mut Transaction, namespace: &Arc<Object>) -> Arc<Object> {
    let content: Vec<Arc<Object>> = transaction
        .state()
        .all()
        .filter(|object| object.name().namespace == namespace.name().name)
        .map(Arc::clone)
        .collect();
    for object in content {
        remove_or_mark(transaction, &object, Deletion::BACKGROUND);
    }
    let mut value = namespace.value().clone();
    value["status"] = json!({"phase": "Terminating"});
    transaction.put(namespace.kind(), value)
}

/// Takes the object off the list of owners of its dependents.
fn orphan(transaction: &mut Transaction, owner: &Object) {
    let dependents: Vec<Arc<Object>> = transaction
        .state()
        .all()
        .filter(|object| object.owners().any(|uid| uid == owner.uid()))
        .map(Arc::clone)
        .collect();
    for dependent in dependents {
        let mut value = dependent.value().clone();
        if let Some(owners) = value["metadata"]["ownerReferences"].as_array_mut() {
            owners.retain(|reference| reference["uid"].as_str() != Some(owner.uid()));
        }
        transaction.put(dependent.kind(), value);
    }
}

/// Takes away the finalizers that the store itself answers for.
pub(super) fn without_own_finalizers(value: &mut Value) {
    if let Some(finalizers) = value["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    }
}
