//! The xDS server: aggregated discovery, incremental and state of the world.
//!
//! Each stream is one task that owns a [`session::Session`]; it is told of new snapshots by a watch channel, so a
//! burst of changes costs a slow client one response. What all clients share is translated once, elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::envoy::service::discovery::v3 as wire;
use wire::aggregated_discovery_service_server::AggregatedDiscoveryService;

use crate::attest::{Attest, Caller};
use crate::ca::Authority;
use crate::identity::caller;
use crate::translate::Snapshot;

pub mod listen;
pub mod plane;
pub mod proxies;
pub mod publish;
mod secrets;
pub mod session;
mod stream;
mod subscription;

use proxies::Proxies;
use stream::transport::{Delta, StateOfTheWorld, Transport};

/// Responses that wait for the transport: one of each type.
const QUEUE: usize = 8;

/// The discovery service.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Shared>,
}

/// What all streams have in common.
struct Shared {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    attest: Arc<dyn Attest>,
    authority: Arc<Authority>,
    proxies: Arc<Proxies>,
    /// Whether a node id is believed where nothing better is known.
    trusts_node_ids: bool,
    cancelled: CancellationToken,
}

impl Discovery {
    /// Serves snapshots to those that `attest` recognises, until cancelled.
    pub fn new(
        snapshots: watch::Receiver<Arc<Snapshot>>,
        attest: Arc<dyn Attest>,
        authority: Arc<Authority>,
        proxies: Arc<Proxies>,
        cancelled: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                snapshots,
                attest,
                authority,
                proxies,
                trusts_node_ids: false,
                cancelled,
            }),
        }
    }

    /// The same for callers that nobody can attest: their node id is believed, and they get no identity.
    #[must_use]
    pub fn insecure(&self) -> Self {
        let Shared {
            snapshots,
            attest,
            authority,
            proxies,
            trusts_node_ids: _,
            cancelled,
        } = &*self.shared;
        Self {
            shared: Arc::new(Shared {
                snapshots: snapshots.clone(),
                attest: Arc::clone(attest),
                authority: Arc::clone(authority),
                proxies: Arc::clone(proxies),
                trusts_node_ids: true,
                cancelled: cancelled.clone(),
            }),
        }
    }

    fn start<T: Transport>(
        &self,
        caller: Caller,
        requests: Streaming<T::Request>,
    ) -> Responses<T::Response> {
        let (responses, receiver) = mpsc::channel(QUEUE);
        let task = stream::run::<T>(Arc::clone(&self.shared), caller, requests, responses);
        Responses {
            receiver,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Responses<wire::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<wire::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<wire::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(
            self.start::<StateOfTheWorld>(caller, request.into_inner()),
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<wire::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(
            self.start::<Delta>(caller, request.into_inner()),
        ))
    }
}

/// The responses of one stream; its task ends with it.
pub struct Responses<R> {
    receiver: mpsc::Receiver<Result<R, Status>>,
    _task: AbortOnDropHandle<()>,
}

impl<R> Stream for Responses<R> {
    type Item = Result<R, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
    }
}
