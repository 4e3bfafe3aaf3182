//! Which ports sandboxes listen on, looked up only while somebody wants to know.
//!
//! The node reads socket tables and tells with its list of containers; one poller asks for all pods that wait, so
//! no connection is made to an application that did not ask for one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::debug;

use super::Context;

const INTERVAL: Duration = Duration::from_millis(20);

/// Ports by sandbox.
type Ports = BTreeMap<String, BTreeSet<u32>>;

/// What the poller knows, and how many want to know it.
#[derive(Debug)]
pub(super) struct Listening {
    interested: watch::Sender<usize>,
    ports: watch::Sender<Ports>,
}

impl Listening {
    pub(super) fn new() -> Self {
        Self {
            interested: watch::Sender::new(0),
            ports: watch::Sender::new(Ports::new()),
        }
    }

    /// Waits until a sandbox listens on all of these ports. The caller sets the deadline.
    pub(super) async fn until(&self, sandbox: &str, wanted: &BTreeSet<u32>) {
        let _interest = Interest::in_(&self.interested);
        let mut ports = self.ports.subscribe();
        // What was found before is from another time.
        ports.mark_unchanged();
        let is_listening = |ports: &Ports| {
            ports
                .get(sandbox)
                .is_some_and(|found| wanted.is_subset(found))
        };
        while ports.changed().await.is_ok() {
            if is_listening(&ports.borrow_and_update()) {
                return;
            }
        }
    }
}

/// Counts one who wants to know.
struct Interest<'a>(&'a watch::Sender<usize>);

impl<'a> Interest<'a> {
    fn in_(interested: &'a watch::Sender<usize>) -> Self {
        interested.send_modify(|count| *count += 1);
        Self(interested)
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Asks the node while anybody waits.
pub(super) async fn poll(context: Arc<Context>) {
    let listening = &context.listening;
    let mut interested = listening.interested.subscribe();
    while interested.wait_for(|count| *count > 0).await.is_ok() {
        match context.node.list_containers().await {
            Ok(containers) => {
                let mut ports = Ports::new();
                for container in containers {
                    let found = ports.entry(container.sandbox_id).or_default();
                    found.extend(container.listening_ports);
                }
                listening.ports.send_replace(ports);
            }
            Err(error) => debug!(%error, "listening ports are not known"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
