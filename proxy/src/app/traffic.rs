//! Starts what carries traffic: the data plane, and how it gets to endpoints and to sidecars of the same machine.

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::channels;
use super::settings::Settings;
use crate::bootstrap::Bootstrap;
use crate::config::identity::IdentityReceiver;
use crate::handover::Inheritance;
use crate::telemetry::report::ReportSink;
use crate::upstream::Upstreams;
use crate::upstream::host_network::{Broker, HostNetwork, OwnNetwork};
use crate::upstream::local_channel::LocalChannels;
use crate::workers::{self, DataPlane};

/// What a data plane is given by the rest of the process.
pub(super) struct Carried {
    /// As whom it speaks.
    pub(super) identity: IdentityReceiver,
    /// Whom it tells of what passed.
    pub(super) reports: Arc<dyn ReportSink>,
    /// The listening sockets of the proxy before it.
    pub(super) inheritance: Inheritance,
    /// Gives free memory back to the system.
    pub(super) release_memory: fn(),
}

impl Carried {
    /// Starts the workers; with a socket broker, what it hands over is taken until `cancel`.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub(super) fn start(
        self,
        bootstrap: &Bootstrap,
        settings: &Settings,
        cancel: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Arc<DataPlane>> {
        let broker = settings
            .broker
            .as_ref()
            .map(|path| Arc::new(Broker::at(path.clone())));
        let host_network: Arc<dyn HostNetwork> = match &broker {
            Some(broker) => Arc::clone(broker) as _,
            None => Arc::new(OwnNetwork),
        };
        let data_plane = DataPlane::start(workers::Options {
            workers: settings.workers,
            upstreams: Upstreams {
                identity: self.identity.clone(),
                host_network,
                sources: bootstrap.sources.clone(),
                local_channels: broker.map(LocalChannels::of),
            },
            reports: self.reports,
            inheritance: self.inheritance.clone(),
            overload: bootstrap.overload.clone(),
            vicinity: bootstrap.vicinity.clone(),
            node_cluster: bootstrap.node.cluster.as_str().into(),
            release_memory: self.release_memory,
        })?;
        if let Some(path) = &settings.broker {
            tasks.spawn(channels::run(
                path.clone(),
                self.identity,
                Arc::downgrade(&data_plane),
                self.inheritance,
                cancel.clone(),
            ));
        }
        Ok(data_plane)
    }
}
