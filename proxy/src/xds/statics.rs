//! The bootstrap's own resources. They are kept as they came, because what they are read with changes: files and
//! runtime values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_proto::Any;

use super::kind::Kind;
use super::origin::{Needed, Origins, Reading};
use super::translate::Checked;
use super::watch::Watched;
use crate::config::Configuration;
use crate::config::runtime::Runtime;

/// A resource of the bootstrap.
#[derive(Debug, Clone)]
pub struct StaticResource {
    /// Of which kind it is.
    pub kind: Kind,
    /// Where in the bootstrap it stands.
    pub field: String,
    /// As it came.
    pub wire: Any,
    /// As it was read last.
    pub reading: Reading,
}

/// Two resources of a kind have one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another one is called {0:?}, too")]
pub struct NameTaken(Arc<str>);

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Statics {
    resources: Vec<StaticResource>,
    /// Runtime layers that are discovered.
    layers: Vec<Needed>,
}

impl Statics {
    /// Adds one.
    ///
    /// # Errors
    /// Another one of its kind has its name.
    pub fn add(&mut self, resource: StaticResource) -> Result<(), NameTaken> {
        let is_taken = self.resources.iter().any(|other| {
            other.kind == resource.kind && other.reading.name == resource.reading.name
        });
        if is_taken {
            return Err(NameTaken(Arc::clone(&resource.reading.name)));
        }
        self.resources.push(resource);
        Ok(())
    }

    /// A runtime layer is discovered.
    pub fn add_layer(&mut self, needed: Needed) {
        self.layers.push(needed);
    }

    /// In the order of the bootstrap.
    pub fn iter(&self) -> impl Iterator<Item = &StaticResource> {
        self.resources.iter()
    }

    /// What they name.
    pub fn needs(&self) -> impl Iterator<Item = &Needed> {
        let resources = self.resources.iter();
        let of_resources = resources.flat_map(|each| &each.reading.needs);
        of_resources.chain(&self.layers)
    }

    /// What they make, where secrets are known by their names.
    pub fn configuration(&self) -> Configuration {
        let mut made = Configuration::default();
        for StaticResource { reading, .. } in &self.resources {
            let name = Arc::clone(&reading.name);
            match &reading.checked {
                Checked::Listener(one) => put(&mut made.listeners, name, one),
                Checked::Cluster(one) => put(&mut made.clusters, name, one),
                Checked::Secret(one) => put(&mut made.secrets, name, one),
                Checked::Routes(one) => put(&mut made.routes, name, one),
                Checked::Endpoints(one) => put(&mut made.endpoints, name, one),
                Checked::Runtime(_) => {}
            }
        }
        made
    }

    /// Reads those again that are meant; what cannot be read any more stays as it was. Tells whether any has changed.
    pub fn read_again(
        &mut self,
        origins: &Origins,
        runtime: &Runtime,
        is_meant: impl Fn(Kind, &BTreeSet<Watched>) -> bool,
    ) -> bool {
        let mut has_changed = false;
        for resource in &mut self.resources {
            if !is_meant(resource.kind, &resource.reading.watches) {
                continue;
            }
            match origins.read(resource.kind, &resource.wire, runtime) {
                Ok(reading) => {
                    has_changed |= reading.checked != resource.reading.checked;
                    resource.reading = reading;
                }
                Err(error) => tracing::warn!(
                    field = resource.field,
                    %error,
                    "what was read last stays in force"
                ),
            }
        }
        has_changed
    }
}

fn put<T>(into: &mut BTreeMap<Arc<str>, Arc<T>>, name: Arc<str>, value: &Arc<T>) {
    into.insert(name, Arc::clone(value));
}
