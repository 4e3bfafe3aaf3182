//! Configuration that has been checked: what the data path runs on.
//!
//! `xds::translate` produces these types from the wire, and refuses what they cannot hold; `snapshot` puts
//! them together. Nobody checks again after that. Fields are public where any combination makes sense;
//! where there is an invariant, the type has a constructor.

pub mod access_log;
pub mod affinity;
pub mod balancing;
pub mod body_format;
pub mod cluster;
pub mod endpoints;
pub mod fault;
pub mod filter;
pub mod headers;
pub mod health_check;
pub mod http;
pub mod http1;
pub mod identity;
pub mod lifespan;
pub mod listener;
pub mod local_replies;
pub mod matching;
pub mod metadata;
pub mod overload;
pub mod paths;
pub mod percent;
pub mod retry;
pub mod route;
pub mod runtime;
pub mod tls;
pub mod tracing;
pub mod tunnel;
pub mod upgrade;
pub mod upstream_socket;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cluster::ClusterConfig;
use endpoints::EndpointsConfig;
use listener::ListenerConfig;
use route::RouteConfig;
use tls::Secret;

/// By names of the configuration. Who sends requests chooses what is looked for, and not what is there: the fastest
/// hash will do.
pub type Named<T> = HashMap<Arc<str>, T, foldhash::fast::RandomState>;

/// Everything a proxy has been told, by name. Values are shared: an unchanged resource is the same `Arc`
/// from one configuration to the next, which is how the snapshot knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Configuration {
    /// Listeners, by name.
    pub listeners: BTreeMap<Arc<str>, Arc<ListenerConfig>>,
    /// Route configurations that listeners name.
    pub routes: BTreeMap<Arc<str>, Arc<RouteConfig>>,
    /// Clusters, by name.
    pub clusters: BTreeMap<Arc<str>, Arc<ClusterConfig>>,
    /// Endpoints, by the name the cluster discovers them under (its own, or `service_name`).
    pub endpoints: BTreeMap<Arc<str>, Arc<EndpointsConfig>>,
    /// What TLS is configured with by name.
    pub secrets: BTreeMap<Arc<str>, Arc<Secret>>,
}

/// Whose network a socket is bound or dialled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The sandbox's own.
    #[default]
    Sandbox,
    /// The host's, through the socket broker.
    Host,
}

/// What a workload is called where it is the source or destination of traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// The workload, usually a deployment.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The pod.
    pub pod: Arc<str>,
    /// The service it was reached as.
    pub service: Arc<str>,
}
