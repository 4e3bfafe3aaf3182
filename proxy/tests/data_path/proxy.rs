//! A data plane on loopback.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use weft_proxy::config::Configuration;
use weft_proxy::config::cluster::ClusterConfig;
use weft_proxy::config::http::HttpConfig;
use weft_proxy::config::identity::{Identity, IdentityReceiver};
use weft_proxy::config::overload::OverloadConfig;
use weft_proxy::config::route::Forward;
use weft_proxy::handover::Inheritance;
use weft_proxy::upstream::Upstreams;
use weft_proxy::upstream::host_network::OwnNetwork;
use weft_proxy::upstream::local_channel::LocalChannels;
use weft_proxy::workers::{DataPlane, Options};

use crate::client::{Client, Got};
use crate::config::{LISTENER, all_to, configuration, filter, http, listener};
use crate::reports::Reports;

/// A running data plane.
pub(crate) struct Proxy {
    pub(crate) data_plane: Arc<DataPlane>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    pub(crate) async fn start(configuration: Configuration) -> Self {
        let (_, identity) = tokio::sync::watch::channel(None);
        Self::start_as(configuration, identity).await
    }

    pub(crate) async fn start_as(configuration: Configuration, identity: IdentityReceiver) -> Self {
        Self::start_near(configuration, identity, None).await
    }

    /// With others on the same machine.
    pub(crate) async fn start_near(
        configuration: Configuration,
        identity: IdentityReceiver,
        local_channels: Option<LocalChannels>,
    ) -> Self {
        Self::start_with(configuration, identity, local_channels, None).await
    }

    /// That does something when it runs short of something.
    pub(crate) async fn start_watched(
        configuration: Configuration,
        overload: OverloadConfig,
    ) -> Self {
        let (_, identity) = tokio::sync::watch::channel(None);
        Self::start_with(configuration, identity, None, Some(overload)).await
    }

    async fn start_with(
        configuration: Configuration,
        identity: IdentityReceiver,
        local_channels: Option<LocalChannels>,
        overload: Option<OverloadConfig>,
    ) -> Self {
        let reports = Arc::new(Reports::default());
        let options = Options {
            workers: NonZeroUsize::new(2).unwrap(),
            upstreams: Upstreams {
                identity,
                host_network: Arc::new(OwnNetwork),
                sources: None,
                local_channels,
            },
            reports: Arc::clone(&reports) as _,
            inheritance: Inheritance::default(),
            overload,
            vicinity: None,
            node_cluster: "".into(),
            release_memory: || {},
        };
        let data_plane = DataPlane::start(options).unwrap();
        let failures = data_plane.apply(configuration).await;
        assert!(failures.is_empty(), "{failures:?}");
        let address = data_plane.addresses(LISTENER).await[0];
        Proxy {
            data_plane,
            reports,
            address,
        }
    }

    /// One HTTP listener, everything to one cluster.
    pub(crate) async fn to(cluster: ClusterConfig) -> Self {
        let forward = Forward::to(&cluster.name);
        Self::with(forward, cluster).await
    }

    pub(crate) async fn with(forward: Forward, cluster: ClusterConfig) -> Self {
        Self::serving(http(all_to(forward)), [cluster]).await
    }

    pub(crate) async fn serving(
        http: HttpConfig,
        clusters: impl IntoIterator<Item = ClusterConfig>,
    ) -> Self {
        Self::start(configuration([listener(filter(http))], clusters)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        Client::http1(self.address).await.get(path).await
    }
}

/// An identity that is there from the beginning.
pub(crate) fn known(identity: Identity) -> IdentityReceiver {
    tokio::sync::watch::channel(Some(Arc::new(identity))).1
}
