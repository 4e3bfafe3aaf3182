//! The objects of the store that a mesh is made from.

use std::any::Any;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use serde::de::DeserializeOwned;

use crate::kinds::backend_traffic_policy::BackendTrafficPolicy;
use crate::kinds::http_route::HttpRoute;
use crate::kinds::peer_authentication::PeerAuthentication;
use crate::kinds::telemetry::Telemetry;
use crate::kinds::{self, Kind};
use crate::store::Snapshot;

/// All objects that the mesh is made from, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// The newest revision of the mesh that is in them.
    pub revision: u64,
    /// Pods.
    pub pods: Vec<Arc<v1::Pod>>,
    /// Services.
    pub services: Vec<Arc<v1::Service>>,
    /// Routes attached to services.
    pub routes: Vec<Arc<HttpRoute>>,
    /// How sidecars balance, limit, retry, disturb.
    pub traffic_policies: Vec<Arc<BackendTrafficPolicy>>,
    /// What servers ask of their callers.
    pub peer_authentications: Vec<Arc<PeerAuthentication>>,
    /// What sidecars tell, and whom.
    pub telemetries: Vec<Arc<Telemetry>>,
}

impl Objects {
    /// Those of the store, parsed once for each change of one.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            revision: snapshot.revision(),
            pods: all(snapshot, &kinds::POD),
            services: all(snapshot, &kinds::SERVICE),
            routes: all(snapshot, &kinds::HTTP_ROUTE),
            traffic_policies: all(snapshot, &kinds::BACKEND_TRAFFIC_POLICY),
            peer_authentications: all(snapshot, &kinds::PEER_AUTHENTICATION),
            telemetries: all(snapshot, &kinds::TELEMETRY),
        }
    }
}

fn all<T>(snapshot: &Snapshot, kind: &Kind) -> Vec<Arc<T>>
where
    T: DeserializeOwned + Any + Send + Sync,
{
    snapshot.typed(kind).collect()
}
