//! What one client wants of one type of resources, what it has been sent, and how that differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::translate::resource::{Resource, ResourceMap};

/// One type of resources on one stream.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// Everything there is.
    pub(super) is_wildcard: bool,
    /// These, whether they exist or not.
    pub(super) names: BTreeSet<Arc<str>>,
    /// Whether names were ever given: until then no names mean everything (state of the world).
    pub(super) has_named: bool,
    /// Asked for since the last response: answered even when unchanged, or absent.
    fresh: BTreeSet<Arc<str>>,
    /// The first request is answered even when there is nothing.
    owes_answer: bool,
    /// What the client has been sent, and may hold.
    held: BTreeMap<Arc<str>, Held>,
    /// The response that the client has not answered yet. There is one at most: what changes meanwhile is
    /// gathered into the next.
    pub(super) pending: Option<Pending>,
    /// The nonce of the newest response.
    pub(super) last_nonce: Option<String>,
    /// Of the responses that the client refused: what it does not have, although it was sent.
    rejected: BTreeSet<Arc<str>>,
    /// The maps that all of the above was made from.
    seen: Vec<Arc<ResourceMap>>,
}

#[derive(Debug)]
struct Held {
    version: Arc<str>,
    /// Not known where the client brought it along from an earlier stream.
    resource: Option<Arc<Resource>>,
}

/// A response on its way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) nonce: String,
    pub(super) revision: u64,
    pub(super) sent_at: Instant,
    names: Vec<Arc<str>>,
}

/// How what there is differs from what the client has.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// To be sent.
    pub(super) updates: Vec<Arc<Resource>>,
    /// Asked for, and not there.
    pub(super) absent: Vec<Arc<str>>,
    /// To be taken away.
    pub(super) removed: Vec<Arc<str>>,
    /// A response is due, whatever is in it.
    pub(super) is_due: bool,
}

impl Difference {
    /// Whether there is something to send before anything is taken away.
    pub(super) fn has_news(&self) -> bool {
        self.is_due || !self.updates.is_empty() || !self.absent.is_empty()
    }
}

impl Subscription {
    /// A client's first word on a type, with what it still has from an earlier stream.
    pub(super) fn open(held: impl IntoIterator<Item = (String, String)>) -> Self {
        let held = held.into_iter().map(|(name, version)| {
            let held = Held {
                version: version.into(),
                resource: None,
            };
            (name.into(), held)
        });
        Self {
            owes_answer: true,
            held: held.collect(),
            ..Self::default()
        }
    }

    /// Adds a name; `*` is everything. What the client said it has needs no second sending.
    pub(super) fn add(&mut self, name: &str) {
        self.has_named = true;
        if name == "*" {
            self.is_wildcard = true;
            return;
        }
        let name: Arc<str> = name.into();
        let is_brought = self
            .held
            .get(&name)
            .is_some_and(|held| held.resource.is_none());
        if !is_brought {
            self.fresh.insert(Arc::clone(&name));
        }
        self.names.insert(name);
    }

    /// Takes a name away.
    pub(super) fn remove(&mut self, name: &str) {
        match name {
            "*" => self.is_wildcard = false,
            name => {
                self.names.remove(name);
                self.fresh.remove(name);
            }
        }
        self.forget_unwanted();
    }

    /// Replaces all names.
    pub(super) fn replace(&mut self, names: &[String]) {
        self.has_named = true;
        self.is_wildcard = names.iter().any(|name| name == "*");
        let names: BTreeSet<Arc<str>> = names
            .iter()
            .filter(|name| *name != "*")
            .map(|name| name.as_str().into())
            .collect();
        self.fresh.retain(|name| names.contains(name));
        self.fresh.extend(names.difference(&self.names).cloned());
        self.names = names;
        self.forget_unwanted();
    }

    fn forget_unwanted(&mut self) {
        if self.is_wildcard {
            return;
        }
        let names = &self.names;
        self.held.retain(|name, _| names.contains(name));
        self.rejected.retain(|name| names.contains(name));
        self.seen.clear();
    }

    /// Notes the client's answer to a response; true where it is the one that was waited for.
    pub(super) fn settle(&mut self, nonce: &str, is_rejected: bool) -> Option<Pending> {
        let pending = self.pending.take_if(|pending| pending.nonce == nonce)?;
        match is_rejected {
            true => self.rejected.extend(pending.names.iter().cloned()),
            false => self.rejected.clear(),
        }
        Some(pending)
    }

    /// Whether the client has refused something that it still should have.
    pub(super) fn is_rejecting(&self) -> bool {
        !self.rejected.is_empty()
    }

    /// What is to be sent, and what taken away. What the client refused is sent again only together with
    /// something new, or it would be refused for ever.
    pub(super) fn compare(&self, maps: &[Arc<ResourceMap>]) -> Difference {
        let is_owed = self.owes_answer || !self.fresh.is_empty();
        if !is_owed && self.has_seen(maps) {
            return Difference::default();
        }
        let mut difference = Difference {
            is_due: self.owes_answer && self.is_wildcard,
            ..Difference::default()
        };
        if self.is_wildcard {
            let changed = maps.iter().filter(|map| !self.has_seen_map(map));
            let updates = changed
                .flat_map(|map| map.values())
                .filter(|resource| self.lacks(resource));
            difference.updates.extend(updates.cloned());
        }
        for name in &self.names {
            match find(maps, name) {
                Some(resource) if self.fresh.contains(name) || self.lacks(resource) => {
                    difference.updates.push(Arc::clone(resource));
                }
                None if self.fresh.contains(name) => difference.absent.push(Arc::clone(name)),
                _ => {}
            }
        }
        let gone = self.held.keys().filter(|name| find(maps, name).is_none());
        difference.removed.extend(gone.cloned());
        self.add_rejected(&mut difference, maps);
        difference
    }

    fn add_rejected(&self, difference: &mut Difference, maps: &[Arc<ResourceMap>]) {
        let has_news = difference.has_news() || !difference.removed.is_empty();
        if has_news && self.is_rejecting() {
            let again = self.rejected.iter().filter_map(|name| find(maps, name));
            difference.updates.extend(again.cloned());
        }
        difference
            .updates
            .sort_by(|one, other| one.name.cmp(&other.name));
        difference
            .updates
            .dedup_by(|one, other| one.name == other.name);
    }

    fn lacks(&self, resource: &Resource) -> bool {
        self.held
            .get(&resource.name)
            .is_none_or(|held| held.version != resource.version)
    }

    /// Everything that is wanted and there; in the state-of-the-world protocol also what is about to be taken
    /// away, as long as others may still lead to it.
    pub(super) fn whole(
        &self,
        maps: &[Arc<ResourceMap>],
        leaving: &[Arc<str>],
    ) -> Vec<Arc<Resource>> {
        let mut whole: Vec<_> = match self.is_wildcard {
            true => maps.iter().flat_map(|map| map.values()).cloned().collect(),
            false => self
                .names
                .iter()
                .filter_map(|name| find(maps, name))
                .cloned()
                .collect(),
        };
        let leaving = leaving
            .iter()
            .filter_map(|name| self.held.get(name)?.resource.clone());
        whole.extend(leaving);
        whole.sort_by(|one, other| one.name.cmp(&other.name));
        whole
    }

    /// Notes that resources were sent.
    pub(super) fn sent(&mut self, resources: &[Arc<Resource>], pending: Pending) {
        for resource in resources {
            let held = Held {
                version: Arc::clone(&resource.version),
                resource: Some(Arc::clone(resource)),
            };
            self.held.insert(Arc::clone(&resource.name), held);
        }
        self.fresh.clear();
        self.owes_answer = false;
        self.last_nonce = Some(pending.nonce.clone());
        self.pending = Some(pending);
    }

    /// Notes that resources were taken away.
    pub(super) fn removed(&mut self, names: &[Arc<str>]) {
        for name in names {
            self.held.remove(name);
            self.rejected.remove(name);
        }
    }

    /// Notes that there is no difference to these maps.
    pub(super) fn caught_up(&mut self, maps: &[Arc<ResourceMap>]) {
        self.seen = maps.to_vec();
    }

    fn has_seen(&self, maps: &[Arc<ResourceMap>]) -> bool {
        self.seen.len() == maps.len() && maps.iter().all(|map| self.has_seen_map(map))
    }

    fn has_seen_map(&self, map: &Arc<ResourceMap>) -> bool {
        self.seen.iter().any(|seen| Arc::ptr_eq(seen, map))
    }
}

impl Pending {
    /// A response that was sent now.
    pub(super) fn new(
        nonce: String,
        revision: u64,
        sent_at: Instant,
        resources: &[Arc<Resource>],
    ) -> Self {
        Self {
            nonce,
            revision,
            sent_at,
            names: resources
                .iter()
                .map(|resource| Arc::clone(&resource.name))
                .collect(),
        }
    }
}

fn find<'a>(maps: &'a [Arc<ResourceMap>], name: &str) -> Option<&'a Arc<Resource>> {
    maps.iter().find_map(|map| map.get(name))
}
