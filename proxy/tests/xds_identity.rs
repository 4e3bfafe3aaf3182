//! The proxy's identity: signed by the control plane, needed before it is ready, kept over a restart.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "other test files use the rest of these modules")]

#[path = "xds/mesh.rs"]
mod mesh;
#[path = "xds/server.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::{Application, cluster, endpoints, get, listener, proxy_with_identity, ready, routes};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateSigningRequestDer;
use server::{Conversation, Server, resource};
use tonic::{Request, Response, Status};
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_proto::envoy::config::listener::v3::Listener;
use weft_proto::envoy::config::route::v3::RouteConfiguration;
use weft_proto::weft::identity::v1::identity_service_server::{
    IdentityService, IdentityServiceServer,
};
use weft_proto::weft::identity::v1::{SignRequest, SignResponse, TrustBundle};

const ID: &str = "spiffe://cluster.local/ns/default/sa/reviews";

/// Signs what is asked, when it is willing.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    is_willing: AtomicBool,
    signed: AtomicU32,
    lifetime: Duration,
}

impl Authority {
    fn new(lifetime: Duration) -> Arc<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Arc::new(Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            is_willing: AtomicBool::new(true),
            signed: AtomicU32::new(0),
            lifetime,
        })
    }

    fn sign(&self, csr: &[u8]) -> SignResponse {
        let csr = CertificateSigningRequestDer::from(csr.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        request.params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
        let leaf = request.signed_by(&self.issuer).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap();
        SignResponse {
            chain: vec![leaf.der().to_vec().into()],
            bundles: vec![TrustBundle {
                trust_domain: "cluster.local".into(),
                roots: vec![self.issuer.der().to_vec().into()],
            }],
            spiffe_id: ID.into(),
            not_after: seconds(now + self.lifetime),
            renew_at: seconds(now + self.lifetime / 2),
        }
    }
}

struct Service(Arc<Authority>);

#[tonic::async_trait]
impl IdentityService for Service {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        if !self.0.is_willing.load(Ordering::SeqCst) {
            return Err(Status::unavailable("not now"));
        }
        self.0.signed.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(self.0.sign(&request.into_inner().csr)))
    }
}

fn start(socket: &Path, authority: &Arc<Authority>) -> Server {
    let service = IdentityServiceServer::new(Service(Arc::clone(authority)));
    Server::start_with(&socket.to_owned(), Some(service))
}

async fn configure(stream: &mut Conversation, application: &Application) {
    stream
        .accepted::<Cluster>(vec![resource("app", "1", &cluster("app"))])
        .await;
    let one = resource("app", "1", &endpoints("app", application.address));
    stream.accepted::<ClusterLoadAssignment>(vec![one]).await;
    stream
        .accepted::<Listener>(vec![resource("web", "1", &listener("web", "web"))])
        .await;
    let one = resource("web", "1", &routes("web", "app"));
    stream.accepted::<RouteConfiguration>(vec![one]).await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(server::PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_sidecar_is_ready_only_with_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("xds.sock");
    let authority = Authority::new(Duration::from_secs(3600));
    authority.is_willing.store(false, Ordering::SeqCst);
    let application = Application::start("app").await;
    let mut server = start(&socket, &authority);
    let proxy = proxy_with_identity(&socket, dir.path()).await;
    let admin = proxy.admin_address().unwrap();
    configure(&mut server.stream().await, &application).await;

    let waits_for_identity = async {
        loop {
            let (status, body) = get(admin, "/ready").await;
            assert_eq!(status, 503, "{body}");
            if body.contains("sign the workload's identity") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(server::PATIENCE, waits_for_identity)
        .await
        .expect("in time");
    authority.is_willing.store(true, Ordering::SeqCst);

    ready(&proxy).await;
    let (_, certs) = get(admin, "/certs").await;
    assert!(certs.contains(ID), "{certs}");
    let (_, dump) = get(admin, "/config_dump?resource=dynamic_active_secrets").await;
    assert!(
        dump.contains("[redacted]") && dump.contains("BEGIN CERTIFICATE"),
        "{dump}"
    );
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn an_identity_is_renewed_before_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("xds.sock");
    let authority = Authority::new(Duration::from_secs(4));
    let _server = start(&socket, &authority);
    let proxy = proxy_with_identity(&socket, dir.path()).await;

    until("no renewal", || {
        authority.signed.load(Ordering::SeqCst) >= 2
    })
    .await;

    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_restarted_sidecar_is_back_with_its_identity_and_without_its_control_plane() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("xds.sock");
    let authority = Authority::new(Duration::from_secs(3600));
    let application = Application::start("app").await;
    {
        let mut server = start(&socket, &authority);
        let proxy = proxy_with_identity(&socket, dir.path()).await;
        configure(&mut server.stream().await, &application).await;
        ready(&proxy).await;
        proxy.shutdown(Duration::ZERO).await;
    }
    std::fs::remove_file(&socket).unwrap();

    let again = proxy_with_identity(&socket, dir.path()).await;

    ready(&again).await;
    assert_eq!(authority.signed.load(Ordering::SeqCst), 1);
    again.shutdown(Duration::ZERO).await;
}
