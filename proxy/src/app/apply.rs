//! From published configurations to the data plane.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::readiness::Readiness;
use crate::cluster::Pick;
use crate::telemetry::export::{Connect, Connection};
use crate::upstream::explain;
use crate::workers::DataPlane;
use crate::xds::state::Published;

/// Puts every configuration in force, and tells when the first whole one is.
pub(super) async fn run(
    mut published: watch::Receiver<Published>,
    data_plane: Weak<DataPlane>,
    readiness: Arc<Readiness>,
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
            readiness.configured(failures.is_empty());
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() {
                // Nothing will ever change again: the bootstrap's own resources are all there is.
                return cancel.cancelled().await;
            },
            () = cancel.cancelled() => return,
        }
    }
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
            let pick = Pick {
                original_destination: None,
                avoid: &[],
                now: Instant::now(),
            };
            let endpoint = cluster.pick(pick).map_err(io::Error::other)?;
            let connection = environment
                .upstreams
                .dial(cluster, &endpoint, Some(weft_proto::names::ALPN_HTTP2))
                .await
                .map_err(io::Error::other)?;
            Ok(Box::new(connection) as Box<dyn Connection>)
        })
    })
}
