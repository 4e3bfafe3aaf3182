//! One stored resource: a JSON value whose metadata is known to be sound.
//!
//! Objects are immutable and shared by pointer between snapshots; the typed form is parsed on first use and kept,
//! so that a change of one object costs the parsing of one object.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kinds::Kind;

/// Where an object is found within its kind. `namespace` is empty for kinds without namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The room.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl Name {
    /// The parts put together.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            formatter.write_str(&self.name)
        } else {
            write!(formatter, "{}/{}", self.namespace, self.name)
        }
    }
}

/// A resource as it is stored.
#[derive(Debug)]
pub struct Object {
    kind: &'static Kind,
    name: Arc<Name>,
    resource_version: u64,
    value: Value,
    typed: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Object {
    /// An object out of its JSON. Missing names become empty ones, which validation refuses before anything is stored.
    pub fn new(kind: &'static Kind, value: Value) -> Self {
        let text = |field: &str| {
            value["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let name = Name {
            namespace: text("namespace"),
            name: text("name"),
        };
        let resource_version = text("resourceVersion").parse().unwrap_or(0);
        Self {
            kind,
            name: Arc::new(name),
            resource_version,
            value,
            typed: OnceLock::new(),
        }
    }

    /// What kind it is.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Where it is found.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The same, shared: what maps of objects are keyed by.
    pub(super) fn shared_name(&self) -> Arc<Name> {
        Arc::clone(&self.name)
    }

    /// When it was last changed, on the store's own clock.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// The whole of it, as JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Which of all objects that ever had this name it is.
    pub fn uid(&self) -> &str {
        self.value["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// Counts the changes of what is wanted.
    pub fn generation(&self) -> i64 {
        self.value["metadata"]["generation"].as_i64().unwrap_or(0)
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.value["metadata"]["labels"][key].as_str()
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.value["metadata"]["annotations"][key].as_str()
    }

    /// Whether it has been asked to go and is still here to say goodbye.
    pub fn is_deleting(&self) -> bool {
        self.value["metadata"]["deletionTimestamp"].is_string()
    }

    /// Whether all of the labels are on it with these values. No labels match nothing, as an empty selector of
    /// a Service does.
    pub fn has_labels(&self, labels: &Value) -> bool {
        labels.as_object().is_some_and(|labels| {
            !labels.is_empty()
                && labels
                    .iter()
                    .all(|(key, value)| self.label(key) == value.as_str())
        })
    }

    /// The uids of its owners.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.value["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|owner| owner["uid"].as_str())
    }

    /// The object as its type, parsed once. `None` where it is not of this type; what is stored was
    /// validated, so that happens only where one object is asked for two types.
    pub fn typed<T>(&self) -> Option<Arc<T>>
    where
        T: DeserializeOwned + Any + Send + Sync,
    {
        if let Some(typed) = self.typed.get() {
            return Arc::clone(typed).downcast().ok();
        }
        let typed: Arc<T> = Arc::new(T::deserialize(&self.value).ok()?);
        let shared: Arc<dyn Any + Send + Sync> = typed;
        Arc::clone(self.typed.get_or_init(|| shared))
            .downcast()
            .ok()
    }
}
