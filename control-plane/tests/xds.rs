//! The xDS server as its clients see it: a gRPC client on the unix socket, a real store behind.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use weft_control_plane::admission::{self, Intent};
use weft_control_plane::attest::ByNetworkNamespace;
use weft_control_plane::kinds;
use weft_control_plane::mesh::Settings;
use weft_control_plane::store::{Name, Store};
use weft_control_plane::xds::listen;
use weft_control_plane::xds::plane::{Options, Plane};
use weft_control_plane::xds::proxies::Proxies;
use weft_proto::envoy::config::core::v3::Node;
use weft_proto::envoy::service::discovery::v3 as wire;
use weft_proto::google::rpc;
use weft_proto::type_urls::{
    CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, SECRET,
};
use weft_proto::weft::identity::v1::SignRequest;
use weft_proto::weft::identity::v1::identity_service_client::IdentityServiceClient;
use wire::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/server.rs"]
mod server;

use sandbox::Sandbox;
use server::{DEADLINE, Server, pod, split};

const REVIEWS: &str = "outbound|80||reviews.default";

async fn connect(socket: &Path) -> Channel {
    let address = format!("unix:{}", socket.display());
    Endpoint::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn node() -> Option<Node> {
    Some(Node {
        id: "sidecar~web.default".to_owned(),
        user_agent_name: "test".to_owned(),
        ..Node::default()
    })
}

/// A client of the incremental protocol.
struct Delta {
    requests: mpsc::Sender<wire::DeltaDiscoveryRequest>,
    responses: Streaming<wire::DeltaDiscoveryResponse>,
}

impl Delta {
    async fn connect(server: &Server) -> Self {
        Self::try_connect(server).await.unwrap()
    }

    async fn try_connect(server: &Server) -> Result<Self, Status> {
        Self::over(connect(&server.socket()).await).await
    }

    async fn over(channel: Channel) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let responses = AggregatedDiscoveryServiceClient::new(channel)
            .delta_aggregated_resources(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    async fn subscribe(&self, type_url: &str, names: &[&str]) {
        let request = wire::DeltaDiscoveryRequest {
            node: node(),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|&name| name.to_owned()).collect(),
            ..wire::DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    async fn receive(&mut self) -> Result<wire::DeltaDiscoveryResponse, Status> {
        let message = tokio::time::timeout(DEADLINE, self.responses.message()).await;
        message
            .expect("a response in time")
            .map(|message| message.expect("a response"))
    }

    /// The next response, which is accepted.
    async fn next(&mut self) -> wire::DeltaDiscoveryResponse {
        let response = self.receive().await.unwrap();
        self.answer(&response, None).await;
        response
    }

    async fn answer(&self, response: &wire::DeltaDiscoveryResponse, error: Option<&str>) {
        let request = wire::DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|message| rpc::Status {
                message: message.to_owned(),
                ..rpc::Status::default()
            }),
            ..wire::DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }
}

fn names(response: &wire::DeltaDiscoveryResponse) -> Vec<&str> {
    response
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

#[tokio::test]
async fn a_change_of_a_policy_sends_the_one_route_table_that_changed() {
    let server = Server::start("web").await;
    server.put_bookstore().await;
    let mut client = Delta::connect(&server).await;
    client.subscribe(CLUSTER, &[]).await;
    assert_eq!(client.next().await.resources.len(), 6);
    client.subscribe(LISTENER, &[]).await;
    assert_eq!(client.next().await.resources.len(), 6);
    client
        .subscribe(ROUTE_CONFIGURATION, &[REVIEWS, "outbound|80||web.default"])
        .await;
    assert_eq!(client.next().await.resources.len(), 2);

    server.put(&kinds::HTTP_ROUTE, split(10)).await;
    let response = client.next().await;

    assert_eq!(response.type_url, ROUTE_CONFIGURATION);
    assert_eq!(names(&response), [REVIEWS]);
    let revision = server.store.snapshot().revision();
    assert_eq!(response.system_version_info, revision.to_string());
    server
        .until("the revision is acknowledged", |proxies| {
            proxies.behind(revision).is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_pod_that_comes_or_goes_sends_endpoints_alone() {
    let server = Server::start("web").await;
    server.put_bookstore().await;
    let mut client = Delta::connect(&server).await;
    client.subscribe(CLUSTER_LOAD_ASSIGNMENT, &[REVIEWS]).await;
    client.next().await;
    let mut unready = pod("reviews-v2", 3);
    unready["status"]["conditions"][0]["status"] = json!("False");

    server.put(&kinds::POD, unready).await;
    let response = client.next().await;

    assert_eq!(names(&response), [REVIEWS]);
    let bytes = &response.resources[0].resource.as_ref().unwrap().value;
    let text = String::from_utf8_lossy(bytes);
    assert!(
        text.contains("10.96.0.2") && !text.contains("10.96.0.3"),
        "{text}"
    );
}

#[tokio::test]
async fn a_service_that_goes_is_removed_from_each_type_by_name() {
    let server = Server::start("web").await;
    server.put_bookstore().await;
    let mut client = Delta::connect(&server).await;
    client.subscribe(CLUSTER, &[]).await;
    client.next().await;
    client.subscribe(LISTENER, &[]).await;
    client.next().await;

    let deleted = admission::write(&server.store, Intent::of_weft(), |transaction| {
        transaction.remove(&kinds::SERVICE, &Name::new("default", "reviews"));
        Ok(())
    });
    deleted.await.unwrap();
    let (first, second) = (client.next().await, client.next().await);

    assert_eq!(
        (first.type_url.as_str(), first.removed_resources),
        (LISTENER, vec![REVIEWS.to_owned()])
    );
    assert_eq!(
        (second.type_url.as_str(), second.removed_resources),
        (CLUSTER, vec![REVIEWS.to_owned()])
    );
}

#[tokio::test]
async fn a_refusal_is_recorded_with_its_reason() {
    let server = Server::start("web").await;
    server.put_bookstore().await;
    let mut client = Delta::connect(&server).await;
    client.subscribe(LISTENER, &[]).await;
    let response = client.receive().await.unwrap();

    client
        .answer(&response, Some("listener inbound: no such filter"))
        .await;

    server
        .until("the refusal is known", |proxies| {
            proxies
                .list()
                .first()
                .is_some_and(|status| status.rejections == 1)
        })
        .await;
    let status = server.proxies.list().remove(0);
    assert_eq!(status.pod, "web");
    assert_eq!(status.identity, "spiffe://cluster.local/ns/default/sa/web");
    assert_eq!(
        status.last_rejection.unwrap().message,
        "listener inbound: no such filter"
    );
    assert_eq!(status.revision_acknowledged, None);
    assert_eq!(
        status.last_error.as_deref(),
        Some("listener inbound: no such filter")
    );

    server.put(&kinds::PEER_AUTHENTICATION, permissive()).await;
    client.next().await;

    let is_well = |proxies: &Proxies| proxies.list()[0].last_error.is_none();
    server.until("what came instead is taken", is_well).await;
}

fn permissive() -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "PeerAuthentication",
        "metadata": {"namespace": "default", "name": "all"},
        "spec": {"mtls": {"mode": "PERMISSIVE"}},
    })
}

#[tokio::test]
async fn a_client_that_leaves_is_no_longer_listed() {
    let server = Server::start("web").await;
    server.put_bookstore().await;
    let mut client = Delta::connect(&server).await;
    client.subscribe(LISTENER, &[]).await;
    client.next().await;
    assert_eq!(server.proxies.list().len(), 1);

    drop(client);

    server
        .until("it is gone", |proxies| proxies.list().is_empty())
        .await;
}

#[tokio::test]
async fn state_of_the_world_sends_all_clusters_on_any_change() {
    let server = Server::start("web").await;
    server.put_bookstore().await;
    let (requests, receiver) = mpsc::channel(16);
    let mut client = AggregatedDiscoveryServiceClient::new(connect(&server.socket()).await);
    let stream = client.stream_aggregated_resources(ReceiverStream::new(receiver));
    let mut responses = stream.await.unwrap().into_inner();
    let mut request = wire::DiscoveryRequest {
        node: node(),
        type_url: CLUSTER.to_owned(),
        ..wire::DiscoveryRequest::default()
    };
    requests.send(request.clone()).await.unwrap();
    let first = responses.message().await.unwrap().unwrap();
    request.version_info = first.version_info.clone();
    request.response_nonce = first.nonce.clone();
    requests.send(request).await.unwrap();

    let breaker = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "BackendTrafficPolicy",
        "metadata": {"namespace": "default", "name": "reviews"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "reviews"}],
            "circuitBreaker": {"maxParallelRequests": 1},
        },
    });
    server.put(&kinds::BACKEND_TRAFFIC_POLICY, breaker).await;
    let second = responses.message().await.unwrap().unwrap();

    assert_eq!(first.resources.len(), 6);
    assert_eq!(second.resources.len(), 6);
    assert_ne!(first.version_info, second.version_info);
}

#[tokio::test]
async fn secrets_are_served_to_clients_that_ask_for_them() {
    let server = Server::start("web").await;
    server.put_bookstore().await;
    let mut client = Delta::connect(&server).await;

    client
        .subscribe(SECRET, &["identity", "trust-bundle"])
        .await;
    let response = client.next().await;

    assert_eq!(names(&response), ["identity", "trust-bundle"]);
    let certificates = server.authority.certificates(std::time::SystemTime::now());
    assert_eq!(certificates.len(), 1);
    assert_eq!(
        certificates[0].identity,
        "spiffe://cluster.local/ns/default/sa/web"
    );
}

#[tokio::test]
async fn the_identity_service_signs_for_the_caller_that_was_attested() {
    let server = Server::start("web").await;
    server.put_bookstore().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let mut client = IdentityServiceClient::new(connect(&server.socket()).await);

    let csr = request.der().to_vec().into();
    let signed = client.sign(SignRequest { csr }).await.unwrap().into_inner();

    assert_eq!(signed.spiffe_id, "spiffe://cluster.local/ns/default/sa/web");
    assert_eq!(signed.chain.len(), 2);
    assert_eq!(signed.bundles[0].roots.len(), 1);
    assert!(signed.renew_at < signed.not_after);
    let refused = client
        .sign(SignRequest {
            csr: vec![1, 2, 3].into(),
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_caller_from_outside_of_the_mesh_is_refused_and_told_why() {
    let server = Server::start_attesting(Arc::new(ByNetworkNamespace)).await;
    server.put_bookstore().await;
    let mut client = Delta::connect(&server).await;
    client.subscribe(LISTENER, &[]).await;

    let refused = client.receive().await.unwrap_err();

    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("network namespace"), "{refused}");
}

#[tokio::test]
async fn a_daemon_that_starts_anew_takes_over_the_socket_of_the_old_one() {
    let old = Server::start("web").await;
    let link = old.home.path().join("xds.sock");
    assert_eq!(
        std::fs::read_link(&link).unwrap(),
        Path::new("pods/xds.sock")
    );

    let again = listen::bind(old.home.path()).unwrap();

    let connected = tokio::net::UnixStream::connect(&link).await.unwrap();
    let accepted = tokio::time::timeout(DEADLINE, again.accept())
        .await
        .unwrap();
    assert!(accepted.is_ok());
    drop(connected);
}

#[tokio::test]
async fn callers_by_tcp_are_who_they_say_and_get_no_identity() {
    let (server, discovery) = Server::start_with(Arc::new(ByNetworkNamespace)).await;
    server.put_bookstore().await;
    let listener = listen::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = listen::serve_insecurely(listener, discovery.insecure(), stop.clone());
    let serving = tokio::spawn(serving);
    let address = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = Delta::over(address.connect().await.unwrap()).await.unwrap();

    client
        .subscribe(SECRET, &["identity", "trust-bundle"])
        .await;
    let response = client.next().await;

    assert_eq!(names(&response), ["trust-bundle"]);
    assert_eq!(response.removed_resources, ["identity"]);
    let status = server.proxies.list().remove(0);
    assert_eq!((status.pod.as_str(), status.identity.as_str()), ("web", ""));
    drop(client);
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_process_in_a_sandbox_is_served_as_the_pod_of_that_sandbox() {
    let server = Server::start_attesting(Arc::new(ByNetworkNamespace)).await;
    server.put_bookstore().await;
    let sandbox = Sandbox::start(&server.socket()).await;
    let mut reviews = pod("reviews-v1", 2);
    let namespace = sandbox.namespace.to_string();
    reviews["metadata"]["annotations"] = json!({"weft.dev/network-namespace": namespace});
    server.put(&kinds::POD, reviews).await;

    let (channel, _process) = sandbox.connect().await;
    let client = Delta::over(channel).await.unwrap();
    client.subscribe(LISTENER, &[]).await;

    server
        .until("it is known", |proxies| !proxies.list().is_empty())
        .await;
    assert_eq!(
        server.proxies.list()[0].identity,
        "spiffe://cluster.local/ns/default/sa/reviews-v1"
    );
}

#[tokio::test]
async fn the_whole_plane_starts_serves_and_ends_when_told() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("state.redb")).unwrap();
    let cancelled = CancellationToken::new();
    let options = Options {
        home: home.path().to_owned(),
        runtime_directory: home.path().join("run"),
        settings: Settings::default(),
        insecure_address: None,
    };

    let plane = Plane::start(options, &store, &cancelled).unwrap();
    let observations = plane.observations();
    connect(&home.path().join("run/xds.sock")).await;
    cancelled.cancel();

    tokio::time::timeout(DEADLINE, plane.ended())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        observations.proxies(),
        json!({"revision": 0, "proxies": []})
    );
}
