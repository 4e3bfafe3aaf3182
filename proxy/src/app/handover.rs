//! The proxy replaced by a newer one, and replacing an older one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Proxy;
use crate::admin::readiness::{Readiness, Unready};
use crate::admin::server::Endpoints;
use crate::handover::predecessor::{Asking, NotReplaced, Offer};
use crate::handover::successor::{CannotReplace, Predecessor};
use crate::handover::{Epoch, Inheritance, READY_LIMIT};
use crate::upstream::explain;
use crate::workers::DataPlane;

/// How often it is looked whether this process is ready to take over.
const READY_CHECK: Duration = Duration::from_millis(20);

/// Why this process has not taken over; the older one goes on.
#[derive(Debug, thiserror::Error)]
#[error("not ready {} seconds after the start ({reason}); the running proxy serves on", READY_LIMIT.as_secs())]
pub struct NotTakenOver {
    reason: Unready,
}

/// This process among those before and after it.
pub(super) struct Succession {
    /// Where newer processes ask; none: this one cannot be replaced.
    path: Option<PathBuf>,
    predecessor: Option<Predecessor>,
    pub(super) epoch: Epoch,
    pub(super) inheritance: Inheritance,
    /// Ends the proxy's own ports alone.
    pub(super) own_ports: CancellationToken,
    /// Set when a newer process serves: how long this one may go on.
    relieved: watch::Sender<Option<Duration>>,
}

impl Succession {
    /// Of a process that replaces the one that answers at `path`, if any does; else the first.
    ///
    /// # Errors
    /// A proxy answers there that cannot be replaced.
    pub(super) async fn find(
        path: Option<&Path>,
        first: Epoch,
        own_ports: CancellationToken,
    ) -> Result<Self, CannotReplace> {
        let predecessor = match path {
            Some(path) => Predecessor::find(path).await?,
            None => None,
        };
        let (epoch, inheritance) = match &predecessor {
            Some(before) => (before.epoch, before.inheritance.clone()),
            None => (first, Inheritance::default()),
        };
        Ok(Succession {
            path: path.map(Path::to_owned),
            predecessor,
            epoch,
            inheritance,
            own_ports,
            relieved: watch::Sender::new(None),
        })
    }

    /// From now on it is this process that newer ones ask.
    fn place_offer(&self) -> Option<Offer> {
        let path = self.path.as_deref()?;
        Offer::at(path)
            .inspect_err(|error| {
                tracing::error!(path = %path.display(), %error, "this proxy cannot be replaced while it runs");
            })
            .ok()
    }
}

impl Proxy {
    /// Begins to accept and relieves the process that is replaced, as soon as this one is ready; at once where none
    /// is. From then on this process can be replaced itself. `drain` is how long the older process may go on.
    ///
    /// # Errors
    /// This process does not get ready: it should end, for the older one serves on.
    pub async fn take_over(&mut self, drain: Duration) -> Result<(), NotTakenOver> {
        let predecessor = self.succession.predecessor.take();
        if predecessor.is_some() {
            let readiness = &self.state.readiness;
            tokio::time::timeout(READY_LIMIT, ready(readiness))
                .await
                .or_else(|_| readiness.unready().map_or(Ok(()), Err))
                .map_err(|reason| NotTakenOver { reason })?;
        }
        // Before anybody can see that this process serves, so that whoever wants to replace it finds it; and while
        // the older one still offers, which takes only its own offer away.
        let offer = self.succession.place_offer();
        if let Some(predecessor) = predecessor {
            // Both accept for a moment: there is none in which nobody does.
            self.succession.inheritance.enter();
            predecessor.relieve(drain).await;
        }
        if let Some(offer) = offer {
            self.offer(offer);
        }
        Ok(())
    }

    fn offer(&mut self, offer: Offer) {
        let offering = Offering {
            offer,
            epoch: self.succession.epoch,
            data_plane: Arc::downgrade(&self.data_plane),
            endpoints: self.endpoints.clone(),
            readiness: Arc::clone(&self.state.readiness),
            own_ports: self.succession.own_ports.clone(),
            relieved: self.succession.relieved.clone(),
        };
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = offering.run() => {}
                () = cancel.cancelled() => {}
            }
        });
    }

    /// Returns when a newer process has taken over, with how long this one may go on.
    async fn relieved(&self) -> Duration {
        let mut relieved = self.succession.relieved.subscribe();
        let limit = relieved.wait_for(Option::is_some).await;
        match limit.ok().and_then(|limit| *limit) {
            Some(limit) => limit,
            None => std::future::pending().await,
        }
    }

    /// Returns when a newer process has taken over and what was begun here has ended, or may last no longer.
    pub async fn relieved_and_finished(&self) {
        let limit = self.relieved().await;
        if let Err(open) = self.data_plane.drain(limit).await {
            tracing::warn!(%open, "not everything has ended in time");
        }
    }

    /// Ends the patience with those who are silent: the process is to end.
    pub fn hurry(&self) {
        self.data_plane.environment().drain.hurry();
    }
}

async fn ready(readiness: &Readiness) {
    while readiness.unready().is_some() {
        tokio::time::sleep(READY_CHECK).await;
    }
}

/// What a newer process is given, and what ends here when it serves.
struct Offering {
    offer: Offer,
    epoch: Epoch,
    data_plane: Weak<DataPlane>,
    endpoints: Endpoints,
    readiness: Arc<Readiness>,
    own_ports: CancellationToken,
    relieved: watch::Sender<Option<Duration>>,
}

impl Offering {
    /// Hands over to the first that comes to serve.
    async fn run(self) {
        loop {
            let mut asking = self.offer.asked().await;
            tracing::info!(
                version = asking.version,
                "a newer process asks for the sockets"
            );
            match self.hand(&mut asking).await {
                Ok(limit) => return self.retire(asking, limit).await,
                Err(error) => {
                    tracing::warn!(error = explain(&error), "not replaced; serving on");
                }
            }
        }
    }

    async fn hand(&self, asking: &mut Asking) -> Result<Duration, NotReplaced> {
        let mut sockets = self.endpoints.sockets().map_err(NotReplaced::Sockets)?;
        if let Some(data_plane) = self.data_plane.upgrade() {
            sockets.extend(data_plane.sockets().await.map_err(NotReplaced::Sockets)?);
        }
        asking.hand(self.epoch, &sockets).await
    }

    async fn retire(self, asking: Asking, limit: Duration) {
        tracing::info!(?limit, "a newer process serves; draining");
        self.readiness.drain();
        self.own_ports.cancel();
        if let Some(data_plane) = self.data_plane.upgrade() {
            data_plane.environment().drain.start_patiently(limit);
        }
        asking.confirm().await;
        self.relieved.send_replace(Some(limit));
    }
}
