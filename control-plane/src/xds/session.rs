//! One client's conversation, without its transport: requests go in, responses come out.
//!
//! Both protocols are the same here; they differ in how names are subscribed to and in what a response holds.
//! Order is "make before break": a type waits until the client has answered for the types before it (clusters,
//! endpoints, secrets, listeners, routes), and only when nothing new is on its way is anything taken away.
//! There is never more than one response of a type on its way, so a slow client gets fewer responses, not more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_proto::envoy::service::discovery::v3 as wire;

use crate::translate::ProxyResources;
use crate::translate::resource::{Resource, ResourceKind};

use super::subscription::{Difference, Pending, Subscription};

/// A client that does not answer for one type holds the others up no longer than this.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// A client cannot make the server remember more.
const MAX_NAMES: usize = 65_536;
/// Longer than any name that is served.
const MAX_NAME_BYTES: usize = 1024;

/// The two protocols of xDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Incremental.
    Delta,
    /// State of the world.
    StateOfTheWorld,
}

/// What a request meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feedback {
    /// A subscription, or an answer to a response that another one has overtaken.
    Nothing,
    /// Of a type that is not served.
    UnknownType(String),
    /// A response was taken over.
    Acknowledged {
        /// Its type.
        kind: ResourceKind,
        /// The revision it was of.
        revision: u64,
    },
    /// A response was refused.
    Rejected {
        /// Its type.
        kind: ResourceKind,
        /// The revision it was of.
        revision: u64,
        /// The client's reason.
        message: String,
    },
}

/// A request that no well-meaning client sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Abuse {
    /// Too many names.
    #[error("more than {MAX_NAMES} resource names of one type are subscribed to")]
    TooManyNames,
    /// A name that is too long.
    #[error("a resource name is longer than {MAX_NAME_BYTES} bytes")]
    LongName,
}

/// A response to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Of which type.
    pub kind: ResourceKind,
    /// By which the client refers to it.
    pub nonce: String,
    /// Of which revision.
    pub revision: u64,
    /// What is there.
    pub resources: Vec<Arc<Resource>>,
    /// What is not (delta only).
    pub removed: Vec<Arc<str>>,
}

/// One client's conversation.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    subscriptions: BTreeMap<ResourceKind, Subscription>,
    nonces: u64,
    acknowledged: Option<u64>,
}

impl Session {
    /// A conversation that has not begun.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            subscriptions: BTreeMap::new(),
            nonces: 0,
            acknowledged: None,
        }
    }

    /// Takes in a request of the delta protocol.
    ///
    /// # Errors
    /// When the client asks for more than it may.
    pub fn on_delta(&mut self, request: &wire::DeltaDiscoveryRequest) -> Result<Feedback, Abuse> {
        let Some(kind) = ResourceKind::from_type_url(&request.type_url) else {
            return Ok(Feedback::UnknownType(request.type_url.clone()));
        };
        let subscribe = &request.resource_names_subscribe;
        check(subscribe)?;
        if request.initial_resource_versions.len() > MAX_NAMES {
            return Err(Abuse::TooManyNames);
        }
        let is_first = !self.subscriptions.contains_key(&kind);
        let subscription = self
            .subscriptions
            .entry(kind)
            .or_insert_with(|| Subscription::open(request.initial_resource_versions.clone()));
        let message = request
            .error_detail
            .as_ref()
            .map(|error| error.message.as_str());
        let feedback = feedback(subscription, kind, &request.response_nonce, message);
        if is_first && subscribe.is_empty() && kind.is_full_state() {
            subscription.is_wildcard = true;
        }
        for name in subscribe {
            subscription.add(name);
        }
        for name in &request.resource_names_unsubscribe {
            subscription.remove(name);
        }
        match subscription.names.len() > MAX_NAMES {
            true => Err(Abuse::TooManyNames),
            false => Ok(feedback),
        }
    }

    /// Takes in a request of the state-of-the-world protocol.
    ///
    /// # Errors
    /// When the client asks for more than it may.
    pub fn on_state_of_the_world(
        &mut self,
        request: &wire::DiscoveryRequest,
    ) -> Result<Feedback, Abuse> {
        let Some(kind) = ResourceKind::from_type_url(&request.type_url) else {
            return Ok(Feedback::UnknownType(request.type_url.clone()));
        };
        check(&request.resource_names)?;
        let is_first = !self.subscriptions.contains_key(&kind);
        let subscription = self
            .subscriptions
            .entry(kind)
            .or_insert_with(|| Subscription::open([]));
        // An answer to an older response: the client will answer the newer one, with the names it then wants.
        let is_overtaken = !request.response_nonce.is_empty()
            && !is_first
            && subscription.last_nonce.as_deref() != Some(request.response_nonce.as_str());
        if is_overtaken {
            return Ok(Feedback::Nothing);
        }
        let message = request
            .error_detail
            .as_ref()
            .map(|error| error.message.as_str());
        let feedback = feedback(subscription, kind, &request.response_nonce, message);
        match request.resource_names.is_empty() && !subscription.has_named && kind.is_full_state() {
            true => subscription.is_wildcard = true,
            false => subscription.replace(&request.resource_names),
        }
        Ok(feedback)
    }

    /// Whether the client has asked for a type.
    pub fn wants(&self, kind: ResourceKind) -> bool {
        self.subscriptions.contains_key(&kind)
    }

    /// The newest revision of which the client has taken over everything that it asked for.
    pub fn acknowledged(&self) -> Option<u64> {
        self.acknowledged
    }

    /// Whether the client lacks something because it has refused it.
    pub fn is_rejecting(&self) -> bool {
        self.subscriptions.values().any(Subscription::is_rejecting)
    }

    /// Until when nothing can be sent although there is something, if the client does not answer before.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.subscriptions
            .values()
            .filter_map(|subscription| subscription.pending.as_ref())
            .map(|pending| pending.sent_at + ANSWER_PATIENCE)
            .filter(|deadline| *deadline > now)
            .min()
    }

    /// What is to be sent now.
    pub fn poll(&mut self, resources: &ProxyResources, now: Instant) -> Vec<Push> {
        let (mut pushes, is_waiting) = self.poll_news(resources, now);
        if !is_waiting && pushes.is_empty() {
            pushes = self.poll_removals(resources, now);
        }
        let is_quiet = self
            .subscriptions
            .values()
            .all(|subscription| subscription.pending.is_none());
        if pushes.is_empty() && is_quiet && !self.is_rejecting() && !self.subscriptions.is_empty() {
            self.acknowledged = Some(resources.revision);
        }
        pushes
    }

    /// The first types of which something is new; true where the client still owes an answer.
    fn poll_news(&mut self, resources: &ProxyResources, now: Instant) -> (Vec<Push>, bool) {
        let mut is_waiting = false;
        let mut pushes = Vec::new();
        for kind in ResourceKind::ALL {
            let Some(subscription) = self.subscriptions.get_mut(&kind) else {
                continue;
            };
            if let Some(pending) = &subscription.pending {
                is_waiting |= now < pending.sent_at + ANSWER_PATIENCE;
                continue;
            }
            if is_waiting {
                continue;
            }
            let maps = resources.maps(kind);
            let difference = subscription.compare(maps);
            if !difference.has_news() {
                if difference.removed.is_empty() {
                    subscription.caught_up(maps);
                }
                continue;
            }
            let sent = match self.protocol {
                Protocol::Delta => (difference.updates, difference.absent),
                Protocol::StateOfTheWorld => {
                    (news(subscription, kind, resources, difference), Vec::new())
                }
            };
            pushes.push(self.push(kind, resources.revision, sent, now));
            is_waiting = true;
        }
        (pushes, is_waiting)
    }

    /// What can go, those first that lead to others.
    fn poll_removals(&mut self, resources: &ProxyResources, now: Instant) -> Vec<Push> {
        let mut pushes = Vec::new();
        for kind in ResourceKind::ALL.into_iter().rev() {
            let Some(subscription) = self.subscriptions.get_mut(&kind) else {
                continue;
            };
            let maps = resources.maps(kind);
            let Difference { removed, .. } = subscription.compare(maps);
            if subscription.pending.is_some() || removed.is_empty() {
                continue;
            }
            subscription.removed(&removed);
            let sent = match self.protocol {
                Protocol::Delta => (Vec::new(), removed),
                Protocol::StateOfTheWorld if kind.is_full_state() => {
                    (subscription.whole(maps, &[]), Vec::new())
                }
                // This protocol has no word for it.
                Protocol::StateOfTheWorld => continue,
            };
            pushes.push(self.push(kind, resources.revision, sent, now));
        }
        pushes
    }

    fn push(
        &mut self,
        kind: ResourceKind,
        revision: u64,
        (resources, removed): (Vec<Arc<Resource>>, Vec<Arc<str>>),
        now: Instant,
    ) -> Push {
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        if let Some(subscription) = self.subscriptions.get_mut(&kind) {
            subscription.sent(
                &resources,
                Pending::new(nonce.clone(), revision, now, &resources),
            );
        }
        Push {
            kind,
            nonce,
            revision,
            resources,
            removed,
        }
    }
}

/// A response of the state-of-the-world protocol: everything, for types where what is missing is gone.
fn news(
    subscription: &Subscription,
    kind: ResourceKind,
    resources: &ProxyResources,
    difference: Difference,
) -> Vec<Arc<Resource>> {
    match kind.is_full_state() {
        true => subscription.whole(resources.maps(kind), &difference.removed),
        false => difference.updates,
    }
}

fn feedback(
    subscription: &mut Subscription,
    kind: ResourceKind,
    nonce: &str,
    error: Option<&str>,
) -> Feedback {
    let Some(Pending { revision, .. }) = subscription.settle(nonce, error.is_some()) else {
        return Feedback::Nothing;
    };
    match error {
        None => Feedback::Acknowledged { kind, revision },
        Some(message) => Feedback::Rejected {
            kind,
            revision,
            message: message.to_owned(),
        },
    }
}

fn check(names: &[String]) -> Result<(), Abuse> {
    if names.len() > MAX_NAMES {
        return Err(Abuse::TooManyNames);
    }
    match names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
        true => Err(Abuse::LongName),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
