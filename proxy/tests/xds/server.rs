//! A control plane that a test plays: what the proxy asks comes to the test, what the test says goes to the proxy.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use prost::Name;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server as Grpc;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::any::pack;
use weft_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use weft_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use weft_proto::weft::identity::v1::identity_service_server::{
    IdentityService, IdentityServiceServer,
};
use weft_proto::weft::identity::v1::{SignRequest, SignResponse};

/// Nothing here takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The server.
pub(crate) struct Server {
    streams: mpsc::Receiver<Conversation>,
    task: JoinHandle<()>,
}

/// One stream of it.
pub(crate) struct Conversation {
    requests: mpsc::Receiver<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    nonces: u32,
}

/// Signs nothing.
pub(crate) struct NoIdentities;

#[tonic::async_trait]
impl IdentityService for NoIdentities {
    async fn sign(&self, _request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        Err(Status::unimplemented("no identities here"))
    }
}

struct Ads {
    streams: mpsc::Sender<Conversation>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("the proxy speaks delta"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut incoming = request.into_inner();
        let (sender, requests) = mpsc::channel(64);
        let (responses, outgoing) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(request)) = incoming.message().await {
                if sender.send(request).await.is_err() {
                    return;
                }
            }
        });
        let conversation = Conversation {
            requests,
            responses,
            nonces: 0,
        };
        self.streams
            .send(conversation)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

impl Server {
    /// Listens on a socket.
    pub(crate) fn start(socket: &PathBuf) -> Self {
        Self::start_with(socket, None::<IdentityServiceServer<NoIdentities>>)
    }

    /// Listens on a socket, and signs identities, too.
    pub(crate) fn start_with<T: IdentityService>(
        socket: &PathBuf,
        identities: Option<IdentityServiceServer<T>>,
    ) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let (streams, receiver) = mpsc::channel(8);
        let service = AggregatedDiscoveryServiceServer::new(Ads { streams });
        let task = tokio::spawn(async move {
            let _ = Grpc::builder()
                .add_service(service)
                .add_optional_service(identities)
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await;
        });
        Self {
            streams: receiver,
            task,
        }
    }

    /// The next stream that a proxy opens.
    pub(crate) async fn stream(&mut self) -> Conversation {
        timeout(PATIENCE, self.streams.recv())
            .await
            .expect("a stream in time")
            .expect("a stream")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Conversation {
    /// The next request.
    pub(crate) async fn request(&mut self) -> DeltaDiscoveryRequest {
        timeout(PATIENCE, self.requests.recv())
            .await
            .expect("a request in time")
            .expect("a request")
    }

    /// The next subscription of a type; answers in between are passed over.
    pub(crate) async fn subscription<T: Name>(&mut self) -> DeltaDiscoveryRequest {
        loop {
            let request = self.request().await;
            if request.type_url == T::type_url() && request.response_nonce.is_empty() {
                return request;
            }
        }
    }

    /// Says something, and waits for the answer to it. Subscriptions in between are given back.
    pub(crate) async fn say<T: Name>(
        &mut self,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> (DeltaDiscoveryRequest, Vec<DeltaDiscoveryRequest>) {
        self.nonces += 1;
        let nonce = format!("nonce-{}", self.nonces);
        let response = DeltaDiscoveryResponse {
            system_version_info: "1".into(),
            resources,
            type_url: T::type_url(),
            nonce: nonce.clone(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        self.responses
            .send(Ok(response))
            .await
            .expect("the stream is open");
        let mut others = vec![];
        loop {
            let request = self.request().await;
            if request.response_nonce == nonce {
                return (request, others);
            }
            others.push(request);
        }
    }

    /// Says something that is expected to be accepted.
    pub(crate) async fn accepted<T: Name>(&mut self, resources: Vec<Resource>) {
        let (answer, _) = self.say::<T>(resources, &[]).await;
        assert_eq!(answer.error_detail, None);
    }
}

/// A resource in its envelope.
pub(crate) fn resource<T: Name>(name: &str, version: &str, message: &T) -> Resource {
    Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(pack(message)),
        ..Resource::default()
    }
}
