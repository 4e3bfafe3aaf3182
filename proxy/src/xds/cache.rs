//! The resources that a control plane has sent: what is in force of each, and what was refused last.
//!
//! A resource that is refused leaves what was in force as it is. Owned by the client; the admin interface reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use weft_proto::Any;
use weft_proto::envoy::service::discovery::v3::Resource;

use super::kind::Kind;
use super::secrets;
use super::store::{Stored, StoredResource};
use super::translate::{Checked, Invalid, translate_with};
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
    /// What runtime keys stand for.
    runtime: Runtime,
    warned: BTreeSet<(Kind, String)>,
}

impl Cache {
    /// An empty one; names of the bootstrap's own resources are taken.
    pub fn new(reserved: impl IntoIterator<Item = (Kind, String)>, runtime: Runtime) -> Self {
        Self {
            reserved: reserved.into_iter().collect(),
            runtime,
            ..Self::default()
        }
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
            Ok(checked) => {
                entry.accepted = Some(Accepted {
                    version,
                    resource,
                    checked,
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

    fn check(&mut self, kind: Kind, name: String, any: &Any) -> (String, Result<Checked, Refusal>) {
        let translated = match translate_with(kind, any, &self.runtime) {
            Ok(translated) => translated,
            Err(invalid) => return (name, Err(invalid.into())),
        };
        let own = translated.name.to_string();
        if !name.is_empty() && own != name {
            return (name, Err(Refusal::Name(own)));
        }
        if self.reserved.contains(&(kind, own.clone())) {
            return (own, Err(Refusal::Static));
        }
        self.warn_once(kind, &own, &translated.notes);
        (own, Ok(translated.checked))
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

    /// The names of the resources that those in force point at.
    pub fn wanted(&self, kind: Kind) -> BTreeSet<String> {
        let names = |accepted: &Accepted| match (kind, &accepted.checked) {
            (Kind::Endpoints, Checked::Cluster(cluster)) => cluster
                .discovery_name()
                .map(|name| name.to_string())
                .into_iter()
                .collect(),
            (Kind::Routes, Checked::Listener(listener)) => super::references::routes(listener)
                .map(|name| name.to_string())
                .collect::<Vec<_>>(),
            (Kind::Secret, Checked::Listener(listener)) => secrets::of_listener(listener)
                .map(|name| name.to_string())
                .collect(),
            (Kind::Secret, Checked::Cluster(cluster)) => secrets::of_cluster(cluster)
                .map(|name| name.to_string())
                .collect(),
            _ => vec![],
        };
        let from: &[Kind] = match kind {
            Kind::Endpoints => &[Kind::Cluster],
            Kind::Routes => &[Kind::Listener],
            Kind::Secret => &[Kind::Cluster, Kind::Listener],
            // The server decides which there are.
            Kind::Cluster | Kind::Listener => &[],
        };
        from.iter()
            .flat_map(|from| self.in_force(*from))
            .flat_map(|(_, accepted)| names(accepted))
            .collect()
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
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::testing::{cluster, eds_cluster, endpoints, resource};
    use super::*;

    #[test]
    fn a_refused_resource_leaves_what_was_in_force() {
        let mut cache = Cache::default();
        cache
            .take(Kind::Cluster, resource("1", &cluster("a")), UNIX_EPOCH)
            .expect("valid");
        let mut bad = cluster("a");
        bad.use_tcp_for_dns_lookups = true;

        let refusal = cache.take(Kind::Cluster, resource("2", &bad), UNIX_EPOCH);

        assert!(refusal.is_err());
        assert_eq!(
            cache
                .accepted(Kind::Cluster, "a")
                .expect("in force")
                .version,
            "1"
        );
        let (_, entry) = cache.of_kind(Kind::Cluster).next().expect("an entry");
        let refused = entry.refused.as_ref().expect("refused");
        assert_eq!(refused.version, "2");
        assert_eq!(
            refused.reason,
            "use_tcp_for_dns_lookups: true is not supported"
        );
    }

    #[test]
    fn what_is_sent_again_unchanged_has_a_new_version_and_its_old_age() {
        let mut cache = Cache::default();
        let sent = |version| {
            let mut wire = resource(version, &cluster("a"));
            wire.name = "a".into();
            wire
        };
        let later = UNIX_EPOCH + std::time::Duration::from_secs(1);
        cache
            .take(Kind::Cluster, sent("1"), UNIX_EPOCH)
            .expect("valid");

        cache.take(Kind::Cluster, sent("2"), later).expect("valid");

        let accepted = cache.accepted(Kind::Cluster, "a").expect("in force");
        assert_eq!(accepted.version, "2");
        assert_eq!(accepted.since, UNIX_EPOCH);
    }

    #[test]
    fn a_resource_under_another_name_is_refused() {
        let mut cache = Cache::default();
        let mut wire = resource("1", &cluster("a"));
        wire.name = "b".into();

        assert_eq!(
            cache.take(Kind::Cluster, wire, UNIX_EPOCH),
            Err(Refusal::Name("a".into()))
        );
    }

    #[test]
    fn the_bootstraps_own_clusters_are_not_replaced() {
        let mut cache = Cache::new([(Kind::Cluster, "xds".to_owned())], Runtime::default());

        let taken = cache.take(Kind::Cluster, resource("1", &cluster("xds")), UNIX_EPOCH);

        assert_eq!(taken, Err(Refusal::Static));
        assert!(cache.accepted(Kind::Cluster, "xds").is_none());
    }

    #[test]
    fn endpoints_are_wanted_as_long_as_a_cluster_names_them() {
        let mut cache = Cache::default();
        cache
            .take(Kind::Cluster, resource("1", &eds_cluster("a")), UNIX_EPOCH)
            .expect("valid");
        cache
            .take(
                Kind::Endpoints,
                resource("1", &endpoints("a", &[])),
                UNIX_EPOCH,
            )
            .expect("valid");

        assert_eq!(
            cache.wanted(Kind::Endpoints),
            BTreeSet::from(["a".to_owned()])
        );

        cache.remove(Kind::Cluster, "a");
        let wanted = cache.wanted(Kind::Endpoints);
        cache.keep_wanted(Kind::Endpoints, &wanted);
        assert!(cache.accepted(Kind::Endpoints, "a").is_none());
    }

    #[test]
    fn what_is_stored_comes_back_with_its_versions() {
        let mut cache = Cache::default();
        cache
            .take(Kind::Cluster, resource("7", &eds_cluster("a")), UNIX_EPOCH)
            .expect("valid");
        cache
            .take(
                Kind::Endpoints,
                resource("8", &endpoints("a", &[])),
                UNIX_EPOCH,
            )
            .expect("valid");

        let mut again = Cache::default();
        let taken = again.take_stored(cache.to_stored("n"), UNIX_EPOCH);

        assert_eq!(taken, 2);
        assert_eq!(again.versions(Kind::Cluster), cache.versions(Kind::Cluster));
        assert_eq!(
            again.versions(Kind::Endpoints),
            cache.versions(Kind::Endpoints)
        );
    }

    #[test]
    fn a_note_is_the_same_whichever_place_it_is_in() {
        assert_eq!(
            without_indices("filter_chains[2].filters[0].typed_config[\"a\"].via"),
            "filter_chains.filters.typed_config.via"
        );
    }
}
