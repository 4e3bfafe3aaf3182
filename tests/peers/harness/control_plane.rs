//! A control plane that signs identities and has nothing else to say: TLS needs one.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use weft_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use weft_proto::weft::identity::v1::identity_service_server::{
    IdentityService, IdentityServiceServer,
};
use weft_proto::weft::identity::v1::{SignRequest, SignResponse, TrustBundle};

const ID: &str = "spiffe://cluster.local/ns/default/sa/peers";
const LIFETIME: Duration = Duration::from_secs(3600);

/// Runs until dropped.
pub(crate) struct ControlPlane {
    folder: TempDir,
}

impl ControlPlane {
    /// Starts one in a runtime, and gives the socket where it is.
    pub(crate) fn start(runtime: &Runtime) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control_plane = Self { folder };
        let _entered = runtime.enter();
        let listener = UnixListener::bind(control_plane.socket()).unwrap();
        let authority = Authority::new();
        runtime.spawn(
            Server::builder()
                .add_service(AggregatedDiscoveryServiceServer::new(Nothing))
                .add_service(IdentityServiceServer::new(authority))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        control_plane
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("xds.sock")
    }

    /// A place beside the socket.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Signs whatever it is asked.
struct Authority {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        Self {
            issuer: Arc::new(issuer.unwrap()),
        }
    }
}

#[tonic::async_trait]
impl IdentityService for Authority {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let csr = request.into_inner().csr.to_vec().into();
        let mut request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        request.params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
        request.params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = request.signed_by(&self.issuer).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap();
        Ok(Response::new(SignResponse {
            chain: vec![leaf.der().to_vec().into()],
            bundles: vec![TrustBundle {
                trust_domain: "cluster.local".into(),
                roots: vec![self.issuer.der().to_vec().into()],
            }],
            spiffe_id: ID.into(),
            not_after: seconds(now + LIFETIME),
            renew_at: seconds(now + LIFETIME / 2),
        }))
    }
}

/// Answers each first request for a type with nothing of that type.
struct Nothing;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Nothing {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("the delta variant is spoken here"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let answers = request.into_inner().filter_map(|request| match request {
            Ok(request) if request.response_nonce.is_empty() => Some(Ok(DeltaDiscoveryResponse {
                system_version_info: "1".into(),
                nonce: "1".into(),
                type_url: request.type_url,
                ..DeltaDiscoveryResponse::default()
            })),
            Ok(_) => None,
            Err(status) => Some(Err(status)),
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
