//! Who is connected, and what each has taken over: for `weft proxy-status`, and for whoever waits until a policy is
//! in force everywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::translate::resource::ResourceKind;

use super::session::Protocol;

/// No message of a client is kept longer.
const MAX_MESSAGE_BYTES: usize = 4096;

/// A connected client of xDS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// The node id it gives itself.
    pub node: String,
    /// The program and version it says it is.
    pub user_agent: String,
    /// The namespace of the pod it was recognised as.
    pub namespace: String,
    /// The name of that pod.
    pub pod: String,
    /// Who it is: `spiffe://…`; empty for one that was not attested.
    pub identity: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Since when.
    pub connected_since: Timestamp,
    /// The newest revision it has been sent something of.
    pub revision_sent: Option<u64>,
    /// The newest revision of which it has taken over all that it asked for.
    #[serde(rename = "revision")]
    pub revision_acknowledged: Option<u64>,
    /// By type, the newest revision of which it has taken over a response.
    pub acknowledged: BTreeMap<ResourceKind, u64>,
    /// Why it lacks something that it should have; none once it has taken over what came instead.
    pub last_error: Option<String>,
    /// The last response it refused.
    pub last_rejection: Option<Rejection>,
    /// How many it refused.
    pub rejections: u64,
}

/// A response that a client refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// Of which type.
    pub kind: ResourceKind,
    /// Of which revision.
    pub revision: u64,
    /// The client's reason.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

impl Rejection {
    /// A refusal, its message shortened where it is endless.
    pub fn new(kind: ResourceKind, revision: u64, mut message: String, at: Timestamp) -> Self {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        Self {
            kind,
            revision,
            message,
            at,
        }
    }
}

/// All connected clients.
#[derive(Debug)]
pub struct Proxies {
    connected: Mutex<Connected>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Connected {
    next: u64,
    proxies: BTreeMap<u64, ProxyStatus>,
}

impl Default for Proxies {
    fn default() -> Self {
        Self {
            connected: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Proxies {
    /// All of them, by pod.
    pub fn list(&self) -> Vec<ProxyStatus> {
        let mut proxies: Vec<_> = self.connected.lock().proxies.values().cloned().collect();
        proxies.sort_by(|one, other| {
            let key = |status: &ProxyStatus| {
                (
                    status.namespace.clone(),
                    status.pod.clone(),
                    status.node.clone(),
                )
            };
            key(one).cmp(&key(other))
        });
        proxies
    }

    /// Those that have not taken over a revision yet.
    pub fn behind(&self, revision: u64) -> Vec<ProxyStatus> {
        let mut proxies = self.list();
        proxies.retain(|status| {
            status
                .revision_acknowledged
                .is_none_or(|acknowledged| acknowledged < revision)
        });
        proxies
    }

    /// Changes whenever anything of the above may have.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Adds a client, until the registration is dropped.
    pub fn connect(self: &Arc<Self>, status: ProxyStatus) -> Registration {
        let mut connected = self.connected.lock();
        let id = connected.next;
        connected.next += 1;
        connected.proxies.insert(id, status);
        drop(connected);
        self.announce();
        Registration {
            proxies: Arc::clone(self),
            id,
        }
    }

    fn announce(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// One connected client; gone when dropped.
#[derive(Debug)]
pub struct Registration {
    proxies: Arc<Proxies>,
    id: u64,
}

impl Registration {
    /// Notes something about the client.
    pub fn update(&self, change: impl FnOnce(&mut ProxyStatus)) {
        let mut connected = self.proxies.connected.lock();
        let Some(status) = connected.proxies.get_mut(&self.id) else {
            return;
        };
        let before = status.clone();
        change(status);
        let is_changed = *status != before;
        drop(connected);
        if is_changed {
            self.proxies.announce();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.proxies.connected.lock().proxies.remove(&self.id);
        self.proxies.announce();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pod: &str, acknowledged: Option<u64>) -> ProxyStatus {
        ProxyStatus {
            node: format!("sidecar~{pod}.default"),
            user_agent: String::new(),
            namespace: "default".to_owned(),
            pod: pod.to_owned(),
            identity: String::new(),
            protocol: Protocol::Delta,
            connected_since: Timestamp::UNIX_EPOCH,
            revision_sent: None,
            revision_acknowledged: acknowledged,
            acknowledged: BTreeMap::new(),
            last_error: None,
            last_rejection: None,
            rejections: 0,
        }
    }

    #[test]
    fn a_client_is_listed_while_it_is_connected() {
        let proxies = Arc::new(Proxies::default());

        let registration = proxies.connect(status("a", None));
        assert_eq!(proxies.list().len(), 1);

        drop(registration);
        assert_eq!(proxies.list().len(), 0);
    }

    #[test]
    fn those_that_lag_behind_a_revision_are_known() {
        let proxies = Arc::new(Proxies::default());
        let _new = proxies.connect(status("a", Some(7)));
        let old = proxies.connect(status("b", Some(6)));

        assert_eq!(proxies.behind(7).len(), 1);
        let mut changes = proxies.changes();
        changes.mark_unchanged();
        old.update(|status| status.revision_acknowledged = Some(7));

        assert_eq!(proxies.behind(7).len(), 0);
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn an_endless_message_is_shortened() {
        let endless = "ä".repeat(MAX_MESSAGE_BYTES);

        let rejection = Rejection::new(ResourceKind::Route, 1, endless, Timestamp::UNIX_EPOCH);

        assert_eq!(rejection.message.len(), MAX_MESSAGE_BYTES);
    }
}
