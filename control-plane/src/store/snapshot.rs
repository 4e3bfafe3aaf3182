//! All objects at one moment. Immutable, cheap to clone: kinds that do not change are shared.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::object::{Name, Object};
use crate::kinds::Kind;

/// Names are shared with the objects, so that a copy of the map copies pointers alone.
type Objects = BTreeMap<Arc<Name>, Arc<Object>>;

/// All objects at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    resource_version: u64,
    revision: u64,
    kinds: BTreeMap<&'static Kind, Arc<Objects>>,
}

impl Snapshot {
    pub(super) fn new(resource_version: u64, revision: u64) -> Self {
        Self {
            resource_version,
            revision,
            kinds: BTreeMap::new(),
        }
    }

    /// The version of the latest change in it.
    pub fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// The number of the latest revision of the mesh.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    pub fn find(&self, kind: &Kind, name: &Name) -> Option<&Arc<Object>> {
        self.kinds.get(kind)?.get(name)
    }

    /// The objects of a kind, by namespace and name; those of one namespace where given.
    pub fn list<'a>(
        &'a self,
        kind: &Kind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let start = match namespace {
            Some(namespace) => Bound::Included(Name::new(namespace, "")),
            None => Bound::Unbounded,
        };
        self.kinds
            .get(kind)
            .into_iter()
            .flat_map(move |objects| objects.range::<Name, _>((start.clone(), Bound::Unbounded)))
            .map(|(_, object)| object)
            .take_while(move |object| {
                namespace.is_none_or(|namespace| object.name().namespace == namespace)
            })
    }

    /// The objects of a kind in their own type.
    pub fn typed<T>(&self, kind: &Kind) -> impl Iterator<Item = Arc<T>>
    where
        T: DeserializeOwned + Any + Send + Sync,
    {
        self.list(kind, None).filter_map(|object| object.typed())
    }

    /// Every object.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.kinds.values().flat_map(|objects| objects.values())
    }

    pub(super) fn insert(&mut self, object: Arc<Object>) {
        self.resource_version = self.resource_version.max(object.resource_version());
        let objects = self.kinds.entry(object.kind()).or_default();
        Arc::make_mut(objects).insert(object.shared_name(), object);
    }

    pub(super) fn remove(&mut self, kind: &'static Kind, name: &Name, resource_version: u64) {
        self.resource_version = self.resource_version.max(resource_version);
        if let Some(objects) = self.kinds.get_mut(kind) {
            Arc::make_mut(objects).remove(name);
        }
    }

    pub(super) fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }
}
