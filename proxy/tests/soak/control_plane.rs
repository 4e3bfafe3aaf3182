//! A control plane that is never done: something changes every second.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::CertificateSigningRequestDer;
use tonic::{Request, Response, Status};
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_proto::envoy::config::listener::v3::Listener;
use weft_proto::envoy::config::route::v3::RouteConfiguration;
use weft_proto::weft::identity::v1::identity_service_server::{
    IdentityService, IdentityServiceServer,
};
use weft_proto::weft::identity::v1::{SignRequest, SignResponse, TrustBundle};

use crate::resources::{self, IDENTITY, INBOUND};
use crate::server::{Conversation, Server, resource};
use crate::upstreams::Upstreams;

/// How long an identity holds: it is renewed during the soak.
const LIFETIME: Duration = Duration::from_secs(600);
/// How often something changes.
const TURN: Duration = Duration::from_secs(1);
/// How long an upstream goes on after its endpoint has been taken away.
const FAREWELL: Duration = Duration::from_secs(3);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn sign(&self, csr: &[u8]) -> SignResponse {
        let csr = CertificateSigningRequestDer::from(csr.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&csr).unwrap();
        request.params.subject_alt_names = vec![SanType::URI(IDENTITY.try_into().unwrap())];
        let leaf = request.signed_by(&self.0).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap();
        SignResponse {
            chain: vec![leaf.der().to_vec().into()],
            bundles: vec![TrustBundle {
                trust_domain: "cluster.local".into(),
                roots: vec![self.0.der().to_vec().into()],
            }],
            spiffe_id: IDENTITY.into(),
            not_after: seconds(now + LIFETIME),
            renew_at: seconds(now + LIFETIME / 2),
        }
    }
}

struct Identities(Arc<Authority>);

#[tonic::async_trait]
impl IdentityService for Identities {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        Ok(Response::new(self.0.sign(&request.into_inner().csr)))
    }
}

/// The control plane.
pub(crate) struct ControlPlane {
    server: Server,
    stream: Option<Conversation>,
    version: u64,
    changes: u64,
}

impl ControlPlane {
    pub(crate) fn start(socket: &Path) -> Self {
        let identities = Identities(Arc::new(Authority::new()));
        let identities = IdentityServiceServer::new(identities);
        ControlPlane {
            server: Server::start_with(&socket.to_owned(), Some(identities)),
            stream: None,
            version: 0,
            changes: 0,
        }
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    async fn say<T: prost::Name>(&mut self, all: Vec<(&str, T)>, removed: &[&str]) {
        self.version += 1;
        self.changes += 1;
        let version = self.version.to_string();
        let resources = all.iter().map(|(name, one)| resource(name, &version, one));
        let stream = self.stream.as_mut().expect("the proxy has come");
        let (answer, _) = stream.say::<T>(resources.collect(), removed).await;
        assert_eq!(answer.error_detail, None);
    }

    /// Tells the proxy everything.
    pub(crate) async fn configure(&mut self, upstreams: &Upstreams) {
        self.stream = Some(self.server.stream().await);
        let names = ["http", "tcp", "tls-http", "tls-tcp"];
        let clusters = names.map(|name| (name, resources::cluster(name, 5)));
        self.say::<Cluster>(clusters.into(), &[]).await;
        let http = upstreams.http_ports();
        let endpoints = vec![
            ("http", resources::endpoints("http", &http)),
            ("tcp", resources::endpoints("tcp", &upstreams.tcp_ports())),
            ("tls-http", resources::endpoints("tls-http", &[INBOUND])),
            ("tls-tcp", resources::endpoints("tls-tcp", &[INBOUND])),
        ];
        self.say::<ClusterLoadAssignment>(endpoints, &[]).await;
        let listeners = resources::listeners();
        let mut listeners: Vec<_> = listeners
            .iter()
            .map(|one| (&*one.name, one.clone()))
            .collect();
        listeners.push(("web", resources::http_listener(0)));
        self.say::<Listener>(listeners, &[]).await;
        self.say_routes(0).await;
    }

    async fn say_routes(&mut self, version: u64) {
        let routes = vec![
            ("web", resources::routes("web", "http", version)),
            ("web-tls", resources::routes("web-tls", "tls-http", version)),
            ("inbound", resources::routes("inbound", "http", version)),
        ];
        self.say::<RouteConfiguration>(routes, &[]).await;
    }

    /// Changes something every second for so long.
    pub(crate) async fn change_for(&mut self, time: Duration, upstreams: &mut Upstreams) {
        let begun = Instant::now();
        let mut turn = 0;
        while begun.elapsed() < time {
            tokio::time::sleep(TURN).await;
            turn += 1;
            self.say_routes(turn).await;
            if turn % 3 == 0 {
                self.change_listener(turn).await;
            }
            if turn % 5 == 0 {
                self.change_cluster(turn).await;
            }
            if turn % 8 == 0 {
                self.replace_upstream(turn, upstreams).await;
            }
        }
        // What comes and goes is gone where things are measured.
        self.say::<Listener>(vec![], &["extra"]).await;
        self.say::<Cluster>(vec![], &["extra"]).await;
    }

    /// One comes or goes; now and then the one that all use becomes another.
    async fn change_listener(&mut self, turn: u64) {
        match turn % 2 {
            0 => self.say::<Listener>(vec![], &["extra"]).await,
            _ => {
                let extra = vec![("extra", resources::extra_listener())];
                self.say::<Listener>(extra, &[]).await;
            }
        }
        if turn.is_multiple_of(30) {
            let web = vec![("web", resources::http_listener(turn / 30))];
            self.say::<Listener>(web, &[]).await;
        }
    }

    async fn change_cluster(&mut self, turn: u64) {
        let http = resources::cluster("http", 5 + turn % 2);
        self.say::<Cluster>(vec![("http", http)], &[]).await;
        match turn % 2 {
            0 => self.say::<Cluster>(vec![], &["extra"]).await,
            _ => {
                let extra = resources::cluster("extra", 5);
                self.say::<Cluster>(vec![("extra", extra)], &[]).await;
            }
        }
    }

    /// An endpoint is taken away, and goes; another comes in its place.
    async fn replace_upstream(&mut self, turn: u64, upstreams: &mut Upstreams) {
        let ports = upstreams.http_ports();
        let leaving = ports[usize::try_from(turn / 8).unwrap() % ports.len()];
        let staying: Vec<_> = ports.into_iter().filter(|port| *port != leaving).collect();
        let endpoints = vec![("http", resources::endpoints("http", &staying))];
        self.say::<ClusterLoadAssignment>(endpoints, &[]).await;
        tokio::time::sleep(FAREWELL).await;
        upstreams.replace(leaving).await;
        let endpoints = vec![(
            "http",
            resources::endpoints("http", &upstreams.http_ports()),
        )];
        self.say::<ClusterLoadAssignment>(endpoints, &[]).await;
    }
}
