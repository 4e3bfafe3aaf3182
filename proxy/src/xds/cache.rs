//! The resources that a control plane has sent: what is in force of each, and what was refused last.
//!
//! A resource that is refused leaves what was in force as it is. Owned by the client; the admin interface reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use weft_proto::Any;
use weft_proto::envoy::service::discovery::v3::Resource;

use super::kind::Kind;
use super::origin::{Needed, Origin, Origins, Reading};
use super::statics::Statics;
use super::store::{Stored, StoredResource};
use super::translate::{Checked, Invalid};
use super::watch::Watched;
use crate::config::runtime::Runtime;

/// A resource by name: at least one of both is there.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// What is in force.
    pub accepted: Option<Accepted>,
    /// What was sent later, and refused.
    pub refused: Option<Refused>,
}

/// A resource in force.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The server's version.
    pub version: String,
    /// As it came.
    pub resource: Any,
    /// In checked types.
    pub checked: Checked,
    /// What it names.
    pub needs: Vec<Needed>,
    /// Where files change that it was read with.
    pub watches: BTreeSet<Watched>,
    /// When it came.
    pub since: SystemTime,
}

/// A resource that was refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The server's version.
    pub version: String,
    /// As it came.
    pub resource: Any,
    /// Why, by field.
    pub reason: String,
    /// When it came.
    pub at: SystemTime,
}

/// Why a resource was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It says something that cannot be done.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nothing is in its envelope.
    #[error("no resource")]
    Empty,
    /// It was announced under another name than its own.
    #[error("its own name is {0:?}")]
    Name(String),
    /// The bootstrap has one of this name.
    #[error("the bootstrap has a resource of this name; rename one of them")]
    Static,
    /// Another one of the same response has its name.
    #[error("the response has another one of this name before it")]
    Twice,
}

/// All resources, by kind and name.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    entries: BTreeMap<(Kind, String), Entry>,
    /// Named resources of which the server said that there are none.
    absent: BTreeSet<(Kind, String)>,
    /// Names that the bootstrap has taken.
    reserved: BTreeSet<(Kind, String)>,
    /// The bootstrap's own resources.
    statics: Statics,
    /// Where named resources may come from.
    origins: Origins,
    /// What runtime keys stand for.
    runtime: Runtime,
    warned: BTreeSet<(Kind, String)>,
}

impl Cache {
    /// Without any but the bootstrap's own, whose names, and more, are taken.
    pub fn new(
        reserved: impl IntoIterator<Item = (Kind, String)>,
        statics: Statics,
        origins: Origins,
        runtime: Runtime,
    ) -> Self {
        Self {
            reserved: reserved.into_iter().collect(),
            statics,
            origins,
            runtime,
            ..Self::default()
        }
    }

    /// The bootstrap's own resources.
    pub fn statics(&self) -> &Statics {
        &self.statics
    }

    /// What runtime keys stand for.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Takes the values of layers that are discovered; tells whether any resource has changed.
    pub fn take_layers(&mut self) -> bool {
        let mut runtime = self.runtime.clone();
        for name in self.runtime.discovered() {
            let accepted = self.accepted(Kind::Runtime, name);
            let values = match accepted.map(|accepted| &accepted.checked) {
                Some(Checked::Runtime(layer)) => layer.entries().clone(),
                _ => BTreeMap::new(),
            };
            runtime.set_discovered(name, &values);
        }
        runtime != self.runtime && self.set_runtime(runtime)
    }

    /// Reads resources again with other runtime values; tells whether any has changed.
    pub fn set_runtime(&mut self, runtime: Runtime) -> bool {
        self.runtime = runtime;
        self.read_again(|_, _| true)
    }

    /// Reads those again whose files have changed in a directory; tells whether any has changed.
    pub fn read_files_again(&mut self, watched: &Watched) -> bool {
        self.read_again(|_, watches| watches.contains(watched))
    }

    /// Reads those again that are meant. What cannot be read any more stays as it was.
    fn read_again(&mut self, is_meant: impl Fn(Kind, &BTreeSet<Watched>) -> bool) -> bool {
        let (origins, runtime) = (&self.origins, &self.runtime);
        let mut has_changed = self.statics.read_again(origins, runtime, &is_meant);
        for ((kind, name), entry) in &mut self.entries {
            let Some(accepted) = &mut entry.accepted else {
                continue;
            };
            if !is_meant(*kind, &accepted.watches) {
                continue;
            }
            match origins.read(*kind, &accepted.resource, runtime) {
                Ok(reading) if reading.checked != accepted.checked => {
                    accepted.checked = reading.checked;
                    accepted.needs = reading.needs;
                    accepted.watches = reading.watches;
                    has_changed = true;
                }
                Ok(_) => {}
                Err(error) => {
                    let kind = kind.word();
                    tracing::warn!(kind, name, %error, "what was read last stays in force");
                }
            }
        }
        has_changed
    }

    /// Takes a resource, or remembers why not.
    pub fn take(&mut self, kind: Kind, wire: Resource, now: SystemTime) -> Result<(), Refusal> {
        let Resource {
            version,
            resource,
            name,
            // Not part of what it says: other names, lifetimes, and notes for proxies between.
            aliases: _,
            ttl: _,
            cache_control: _,
            resource_name,
            metadata: _,
        } = wire;
        let name = if name.is_empty() {
            resource_name.unwrap_or_default().name
        } else {
            name
        };
        let resource = resource.ok_or(Refusal::Empty)?;
        if self.is_unchanged(kind, &name, &version, &resource) {
            return Ok(());
        }
        let (name, result) = self.check(kind, name, &resource);
        let entry = self.entries.entry((kind, name.clone())).or_default();
        match result {
            Ok(reading) => {
                entry.accepted = Some(Accepted {
                    version,
                    resource,
                    checked: reading.checked,
                    needs: reading.needs,
                    watches: reading.watches,
                    since: now,
                });
                entry.refused = None;
                self.absent.remove(&(kind, name));
                Ok(())
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                entry.refused = Some(Refused {
                    version,
                    resource,
                    reason,
                    at: now,
                });
                Err(refusal)
            }
        }
    }

    /// Whether the very same is in force already, which the state of the world tells with each change of others;
    /// then only its version changes.
    fn is_unchanged(&mut self, kind: Kind, name: &str, version: &str, resource: &Any) -> bool {
        let Some(entry) = self.entries.get_mut(&(kind, name.to_owned())) else {
            return false;
        };
        match &mut entry.accepted {
            Some(accepted) if accepted.resource == *resource => {
                version.clone_into(&mut accepted.version);
                entry.refused = None;
                self.absent.remove(&(kind, name.to_owned()));
                true
            }
            _ => false,
        }
    }

    fn check(&mut self, kind: Kind, name: String, any: &Any) -> (String, Result<Reading, Refusal>) {
        let reading = match self.origins.read(kind, any, &self.runtime) {
            Ok(reading) => reading,
            Err(invalid) => return (name, Err(invalid.into())),
        };
        let own = reading.name.to_string();
        if !name.is_empty() && own != name {
            return (name, Err(Refusal::Name(own)));
        }
        if self.reserved.contains(&(kind, own.clone())) {
            return (own, Err(Refusal::Static));
        }
        self.warn_once(kind, &own, &reading.notes);
        (own, Ok(reading))
    }

    /// A field without effect is said once, whichever resource has it.
    fn warn_once(&mut self, kind: Kind, name: &str, notes: &BTreeSet<String>) {
        for path in notes {
            let field = without_indices(path);
            if self.warned.insert((kind, field.clone())) {
                tracing::warn!(kind = kind.word(), name, field, "this field has no effect");
            }
        }
    }

    /// Forgets a resource. Endpoints and routes that somebody still names are known to be absent.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        let key = (kind, name.to_owned());
        match kind {
            // As Envoy does: endpoints go with their cluster, not before it.
            Kind::Endpoints if self.accepted(kind, name).is_some() => {}
            _ => {
                self.entries.remove(&key);
            }
        }
        self.absent.insert(key);
    }

    /// Forgets what is of no use: named resources that nobody names.
    pub fn keep_wanted(&mut self, kind: Kind, wanted: &BTreeSet<String>) {
        self.entries
            .retain(|(of, name), _| *of != kind || wanted.contains(name));
        self.absent
            .retain(|(of, name)| *of != kind || wanted.contains(name));
    }

    /// Forgets what a server said to be absent: another server may know it.
    pub fn forget_absences(&mut self) {
        self.absent.clear();
    }

    /// Whether the server said that there is none of this name.
    pub fn is_absent(&self, kind: Kind, name: &str) -> bool {
        self.absent.contains(&(kind, name.to_owned()))
    }

    /// All of a kind, by name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries
            .range((kind, String::new())..)
            .take_while(move |((of, _), _)| *of == kind)
            .map(|((_, name), entry)| (name.as_str(), entry))
    }

    /// What is in force of a kind.
    pub fn in_force(&self, kind: Kind) -> impl Iterator<Item = (&str, &Accepted)> {
        self.of_kind(kind)
            .filter_map(|(name, entry)| Some((name, entry.accepted.as_ref()?)))
    }

    /// The bootstrap's own of a kind, and what is in force; with whether it is the bootstrap's.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, &Checked, bool)> {
        let own = self.statics.iter().filter(move |each| each.kind == kind);
        let own = own.map(|each| (&*each.reading.name, &each.reading.checked, true));
        own.chain(
            self.in_force(kind)
                .map(|(name, accepted)| (name, &accepted.checked, false)),
        )
    }

    /// What is in force under a name.
    pub fn accepted(&self, kind: Kind, name: &str) -> Option<&Accepted> {
        self.entries
            .get(&(kind, name.to_owned()))?
            .accepted
            .as_ref()
    }

    /// The versions in force of a kind, as a new stream tells them.
    pub fn versions(&self, kind: Kind) -> BTreeMap<String, String> {
        self.in_force(kind)
            .map(|(name, accepted)| (name.to_owned(), accepted.version.clone()))
            .collect()
    }

    /// What the bootstrap's resources, those in force and runtime layers name.
    pub fn needs(&self) -> impl Iterator<Item = &Needed> {
        let in_force = self.entries.values();
        let in_force = in_force.filter_map(|entry| entry.accepted.as_ref());
        let in_force = in_force.flat_map(|accepted| &accepted.needs);
        self.statics.needs().chain(in_force)
    }

    /// The resources of a kind that are named, with where they come from. One name is one resource: where two name it
    /// with different sources, the first one counts.
    pub fn wanted(&self, kind: Kind) -> BTreeMap<String, &Origin> {
        let mut wanted = BTreeMap::new();
        for needed in self.needs().filter(|needed| needed.kind == kind) {
            if needed.origin != Origin::Bootstrap {
                wanted
                    .entry(needed.name.to_string())
                    .or_insert(&needed.origin);
            }
        }
        wanted
    }

    /// Directories of files that resources were read with.
    pub fn watches(&self) -> BTreeSet<Watched> {
        let in_force = self.entries.values();
        let in_force = in_force.filter_map(|entry| entry.accepted.as_ref());
        let in_force = in_force.flat_map(|accepted| &accepted.watches);
        let statics = self.statics.iter();
        let statics = statics.flat_map(|each| &each.reading.watches);
        in_force.chain(statics).cloned().collect()
    }

    /// All in force, for the disk.
    pub fn to_stored(&self, node_id: &str) -> Stored {
        let resources = Kind::ALL
            .into_iter()
            // A private key has no business on the disk.
            .filter(|kind| *kind != Kind::Secret)
            .flat_map(|kind| self.in_force(kind))
            .map(|(name, accepted)| StoredResource {
                name: name.to_owned(),
                version: accepted.version.clone(),
                resource: Some(accepted.resource.clone()),
            })
            .collect();
        Stored {
            node_id: node_id.to_owned(),
            resources,
        }
    }

    /// Takes what was stored; what is no longer accepted is left out. Tells how many were taken.
    pub fn take_stored(&mut self, stored: Stored, now: SystemTime) -> usize {
        let Stored {
            node_id: _,
            resources,
        } = stored;
        let mut taken = 0;
        for StoredResource {
            name,
            version,
            resource,
        } in resources
        {
            let kind = resource.as_ref().and_then(|any| Kind::of(&any.type_url));
            let Some(kind) = kind else { continue };
            let wire = Resource {
                name,
                version,
                resource,
                ..Resource::default()
            };
            match self.take(kind, wire, now) {
                Ok(()) => taken += 1,
                Err(refusal) => tracing::warn!(%refusal, "a stored resource is left out"),
            }
        }
        taken
    }
}

/// `filter_chains[2].filters[0]` as `filter_chains.filters`.
fn without_indices(path: &str) -> String {
    let mut depth = 0_u32;
    path.chars()
        .filter(|character| {
            match character {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect()
}

/// Shared between the client, which writes, and the admin interface, which reads.
pub type SharedCache = Arc<parking_lot::RwLock<Cache>>;

#[cfg(test)]
mod tests;
