//! Where configurations come from: control planes and files, or the bootstrap alone.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::settings::{self, Settings};
use crate::bootstrap::Bootstrap;
use crate::xds::cache::SharedCache;
use crate::xds::client::Client;
use crate::xds::file;
use crate::xds::kind::Scope;
use crate::xds::metrics::Metrics;
use crate::xds::origin::Origin;
use crate::xds::state::{Published, State};
use crate::xds::store::Store;
use crate::xds::streams::Streams;

/// What is in force as it changes, or the one configuration that the bootstrap has.
pub(super) fn start(
    bootstrap: &Bootstrap,
    settings: &Settings,
    cache: &SharedCache,
    metrics: Option<&Metrics>,
    cancel: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> (Option<Arc<State>>, watch::Receiver<Published>) {
    let Some(metrics) = metrics else {
        let (_, published) = watch::channel(Published {
            configuration: Arc::new(bootstrap.statics.clone()),
            is_complete: true,
        });
        return (None, published);
    };
    let discovery = bootstrap.discovery.clone();
    let node = settings::node(bootstrap);
    let (state, published) = State::new(
        node.id.clone(),
        settings.state_dir.as_deref().map(Store::in_dir),
        Arc::clone(cache),
        metrics.clone(),
        &discovery.awaited,
    );
    let state = Arc::new(state);
    let scope = Scope::Aggregated(discovery.aggregated());
    let aggregated = discovery.ads.map(|ads| (ads, scope, Origin::Aggregated));
    let services = discovery.services.into_iter().map(|(kind, service)| {
        let origin = Origin::Service(service.clone());
        (service, Scope::Of(kind), origin)
    });
    for (service, scope, origin) in aggregated.into_iter().chain(services) {
        let (node, state) = (node.clone(), Arc::clone(&state));
        let client = Client::new(service, scope, origin, node, state, metrics.clone());
        tasks.spawn(client.run(cancel.clone()));
    }
    for (kind, source) in discovery.files {
        let (state, metrics) = (Arc::clone(&state), metrics.clone());
        tasks.spawn(file::follow(kind, source, state, metrics, cancel.clone()));
    }
    let streams = Streams {
        node,
        state: Arc::clone(&state),
        metrics: metrics.clone(),
    };
    tasks.spawn(streams.run(cancel.clone()));
    tasks.spawn(Arc::clone(&state).tend(cancel.clone()));
    (Some(state), published)
}
