//! From published configurations to the data plane.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::admin::readiness::Readiness;
use crate::cluster::Pick;
use crate::config::listener::Binding;
use crate::telemetry::export::{Connect, Connection};
use crate::upstream::explain;
use crate::upstream::guise::Guise;
use crate::workers::DataPlane;
use crate::xds::state::Published;

/// How often it is looked whether what could not be bound is bound by now.
const BIND_CHECK: Duration = Duration::from_millis(250);
/// How long nothing must have changed before what a change took is given back: during a series of changes, it would be
/// needed again.
const QUIET: Duration = Duration::from_secs(5);

/// Puts every configuration in force, and tells when the first whole one is.
pub(super) async fn run(
    mut published: watch::Receiver<Published>,
    data_plane: Weak<DataPlane>,
    readiness: Arc<Readiness>,
    settle: fn(),
    cancel: CancellationToken,
) {
    loop {
        let Published {
            configuration,
            is_complete,
        } = published.borrow_and_update().clone();
        let Some(data_plane) = data_plane.upgrade() else {
            return;
        };
        let failures = data_plane.apply((*configuration).clone()).await;
        drop(data_plane);
        for failure in &failures {
            tracing::warn!(error = explain(failure), "not listening; trying again");
        }
        if is_complete {
            readiness.configured();
        }
        if is_complete && failures.is_empty() {
            readiness.bound();
        }
        tokio::select! {
            changed = next_change(&mut published, QUIET, settle) => if changed.is_err() {
                // Nothing will ever change again: the bootstrap's own resources are all there is.
                return cancel.cancelled().await;
            },
            () = cancel.cancelled() => return,
        }
    }
}

/// Waits for the next configuration, and meanwhile has that given back which the last one took to be made.
async fn next_change(
    published: &mut watch::Receiver<Published>,
    quiet: Duration,
    settle: fn(),
) -> Result<(), RecvError> {
    match timeout(quiet, published.changed()).await {
        Ok(Ok(())) => return Ok(()),
        // There will be none: what is left is to wait.
        Ok(Err(_)) => sleep(quiet).await,
        Err(_) => {}
    }
    settle();
    published.changed().await
}

/// Tells when what could not be bound at first is bound: the data plane tries again by itself.
pub(super) async fn watch_binding(
    data_plane: Weak<DataPlane>,
    readiness: Arc<Readiness>,
    cancel: CancellationToken,
) {
    while !readiness.is_bound() {
        tokio::select! {
            () = sleep(BIND_CHECK) => {}
            () = cancel.cancelled() => return,
        }
        let Some(data_plane) = data_plane.upgrade() else {
            return;
        };
        if readiness.is_configured() && is_bound(&data_plane).await {
            return readiness.bound();
        }
    }
}

async fn is_bound(data_plane: &DataPlane) -> bool {
    for (name, listener) in &data_plane.snapshot().listeners {
        let wanted = match listener.config.binding {
            Binding::Bound => listener.config.addresses.len(),
            Binding::Virtual => 0,
        };
        if data_plane.addresses(name).await.len() < wanted {
            return false;
        }
    }
    true
}

/// Connections to collectors of spans, made as to any endpoint of the cluster.
pub(super) fn collector_connections(data_plane: &Arc<DataPlane>) -> Connect {
    let environment = Arc::downgrade(data_plane.environment());
    Arc::new(move |name| {
        let environment = environment.clone();
        Box::pin(async move {
            let environment = environment
                .upgrade()
                .ok_or_else(|| io::Error::other("the proxy is shutting down"))?;
            let snapshot = environment.snapshot.load_full();
            let cluster = snapshot
                .clusters
                .get(&name)
                .ok_or_else(|| io::Error::other(format!("no cluster is called {name:?}")))?;
            let pick = Pick::at(Instant::now());
            let endpoint = cluster.pick(pick).map_err(io::Error::other)?;
            let connection = environment
                .upstreams
                .dial(
                    cluster,
                    &endpoint,
                    Some(weft_proto::names::ALPN_HTTP2),
                    Guise::own(&cluster.config),
                )
                .await
                .map_err(io::Error::other)?;
            Ok(Box::new(connection) as Box<dyn Connection>)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn what_a_change_took_is_given_back_when_changes_have_ended() {
        static TIMES: AtomicUsize = AtomicUsize::new(0);
        static SETTLED: Notify = Notify::const_new();
        let settle = || {
            TIMES.fetch_add(1, Ordering::Relaxed);
            SETTLED.notify_one();
        };
        let (sender, mut receiver) = watch::channel(Published::default());
        for _ in 0..3 {
            sender.send_replace(Published::default());
            assert!(next_change(&mut receiver, LONG, settle).await.is_ok());
        }
        assert_eq!(TIMES.load(Ordering::Relaxed), 0, "in a series of changes");

        tokio::select! {
            _ = next_change(&mut receiver, SHORT, settle) => panic!("nothing changes"),
            () = SETTLED.notified() => {}
        }

        drop(sender);
        assert!(next_change(&mut receiver, SHORT, settle).await.is_err());
        assert_eq!(TIMES.load(Ordering::Relaxed), 2);
    }
}
