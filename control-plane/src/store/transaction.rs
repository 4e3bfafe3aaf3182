//! A change of the store in the making: sees its own writes, and happens as a whole or not at all.
//!
//! Here is what the store itself guarantees of metadata: uid, creationTimestamp, generation, resourceVersion. What
//! a kind means is the business of `admission`.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::object::{Name, Object};
use super::snapshot::Snapshot;
use crate::kinds::Kind;

/// One object's change. `before` is what watchers with selectors need: an object that no longer matches is
/// gone for them.
#[derive(Debug)]
pub enum Change {
    /// It is new.
    Added(Arc<Object>),
    /// It is another now.
    Modified {
        /// What it was.
        before: Arc<Object>,
        /// What it is.
        after: Arc<Object>,
    },
    /// It is gone.
    Deleted {
        /// What it was.
        before: Arc<Object>,
        /// The last that is known of it, with the version of its end.
        last: Arc<Object>,
    },
}

impl Change {
    /// The object as it is after the change.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Added(object) => object,
            Self::Modified { after, .. } => after,
            Self::Deleted { last, .. } => last,
        }
    }

    /// The object as it was.
    pub fn before(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Added(_) => None,
            Self::Modified { before, .. } | Self::Deleted { before, .. } => Some(before),
        }
    }

    /// Whether what people wrote has changed, and not only what became of it.
    pub fn is_of_intent(&self) -> bool {
        match self {
            Self::Added(_) | Self::Deleted { .. } => true,
            Self::Modified { before, after } => !is_same_intent(before.value(), after.value()),
        }
    }
}

/// A change of the store in the making.
#[derive(Debug)]
pub struct Transaction {
    state: Snapshot,
    changes: Vec<Arc<Change>>,
    warnings: Vec<String>,
    now: Timestamp,
}

impl Transaction {
    pub(super) fn new(base: Snapshot, now: Timestamp) -> Self {
        Self {
            state: base,
            changes: Vec::new(),
            warnings: Vec::new(),
            now,
        }
    }

    /// Everything, with the changes made so far.
    pub fn state(&self) -> &Snapshot {
        &self.state
    }

    /// The changes made so far.
    pub fn changes(&self) -> &[Arc<Change>] {
        &self.changes
    }

    /// The moment of the change, one for the whole transaction.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Something that the caller should know although it is allowed.
    pub fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// What the caller should know.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Creates or replaces an object and returns it as it is stored. System metadata in `value` is overwritten;
    /// what is equal to what is there changes nothing.
    pub fn put(&mut self, kind: &'static Kind, mut value: Value) -> Arc<Object> {
        let draft = Object::new(kind, value.clone());
        let existing = self.state.find(kind, draft.name()).cloned();
        fill_metadata(&mut value, existing.as_deref(), self.now);
        if let Some(existing) = &existing
            && is_same(existing.value(), &value)
        {
            return Arc::clone(existing);
        }
        set(
            &mut value,
            "resourceVersion",
            json!(self.next_version().to_string()),
        );
        let object = Arc::new(Object::new(kind, value));
        self.state.insert(Arc::clone(&object));
        self.changes.push(Arc::new(match existing {
            None => Change::Added(Arc::clone(&object)),
            Some(before) => Change::Modified {
                before,
                after: Arc::clone(&object),
            },
        }));
        object
    }

    /// Removes an object at once and returns the last of it; `None` where there is none.
    pub fn remove(&mut self, kind: &'static Kind, name: &Name) -> Option<Arc<Object>> {
        let before = Arc::clone(self.state.find(kind, name)?);
        let version = self.next_version();
        let mut value = before.value().clone();
        set(&mut value, "resourceVersion", json!(version.to_string()));
        let last = Arc::new(Object::new(kind, value));
        self.state.remove(kind, name, version);
        self.changes.push(Arc::new(Change::Deleted {
            before,
            last: Arc::clone(&last),
        }));
        Some(last)
    }

    /// Marks an object as deleting, so that those who hold it can let go; the store keeps the mark in later puts.
    pub fn mark_deleting(&mut self, object: &Object, grace_seconds: i64) -> Arc<Object> {
        let mut value = object.value().clone();
        let end = self.now + jiff::SignedDuration::from_secs(grace_seconds.clamp(0, 86_400));
        set(&mut value, "deletionTimestamp", json!(seconds(end)));
        set(
            &mut value,
            "deletionGracePeriodSeconds",
            json!(grace_seconds),
        );
        self.put(object.kind(), value)
    }

    pub(super) fn set_revision(&mut self, revision: u64) {
        self.state.set_revision(revision);
    }

    pub(super) fn into_parts(self) -> (Snapshot, Vec<Arc<Change>>, Vec<String>) {
        (self.state, self.changes, self.warnings)
    }

    /// Each changed object gets a version of its own, so that a watch can go on between any two.
    fn next_version(&self) -> u64 {
        self.state.resource_version() + 1
    }
}

/// A moment as metadata writes it: RFC 3339, whole seconds.
pub fn seconds(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn fill_metadata(value: &mut Value, existing: Option<&Object>, now: Timestamp) {
    match existing {
        None => {
            set(value, "uid", json!(random_uid()));
            set(value, "creationTimestamp", json!(seconds(now)));
            if value.get("spec").is_some() {
                set(value, "generation", json!(1));
            }
        }
        Some(existing) => {
            let metadata = &existing.value()["metadata"];
            for field in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
                set(value, field, metadata[field].clone());
            }
            for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
                if !metadata[field].is_null() && value["metadata"][field].is_null() {
                    set(value, field, metadata[field].clone());
                }
            }
            let has_generation = metadata["generation"].is_i64() || metadata["generation"].is_u64();
            if has_generation && !is_same_intent(existing.value(), value) {
                set(value, "generation", json!(existing.generation() + 1));
            }
        }
    }
}

fn set(value: &mut Value, field: &str, content: Value) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    let metadata = object
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(metadata) = metadata.as_object_mut() {
        if content.is_null() {
            metadata.remove(field);
        } else {
            metadata.insert(field.to_owned(), content);
        }
    }
}

/// Equal but for the bookkeeping of field managers, whose times differ with every request.
fn is_same(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else {
        return one == other;
    };
    one.len() == other.len()
        && one.iter().all(|(field, value)| match other.get(field) {
            Some(there) if field == "metadata" => is_same_metadata(value, there),
            Some(there) => value == there,
            None => false,
        })
}

fn is_same_metadata(one: &Value, other: &Value) -> bool {
    without_times(one) == without_times(other)
}

fn without_times(metadata: &Value) -> Value {
    let mut metadata = metadata.clone();
    let managers = metadata
        .get_mut("managedFields")
        .and_then(Value::as_array_mut);
    for manager in managers.into_iter().flatten() {
        if let Some(manager) = manager.as_object_mut() {
            manager.remove("time");
        }
    }
    metadata
}

/// Equal in everything but metadata and status.
fn is_same_intent(one: &Value, other: &Value) -> bool {
    let intent = |value: &Value| -> Map<String, Value> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(field, _)| !matches!(field.as_str(), "metadata" | "status"))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    intent(one) == intent(other)
}

/// A random UUID (RFC 9562 §5.4).
fn random_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
