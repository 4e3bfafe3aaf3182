//! Mutual TLS between two proxies in one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_proxy::config::cluster::{ClusterConfig, Transport};
use weft_proxy::config::http::ForwardClientCertificate;
use weft_proxy::config::identity::Identity;
use weft_proxy::config::listener::{
    ChainMatch, Direction, FilterChain, ListenerConfig, TransportProtocol,
};
use weft_proxy::config::matching::TextMatch;
use weft_proxy::config::route::Forward;
use weft_proxy::config::tls::{Believed, DownstreamTls, Shown, UpstreamTls, Versions};

use crate::client::Client;
use crate::config::{LISTENER, all_to, chain, cluster, configuration, filter, http, listener, tcp};
use crate::proxy::{Proxy, known};
use crate::upstream::{Upstream, until};

pub(crate) const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/default/sa/productpage";
pub(crate) const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn identity(&self, spiffe_id: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(vec![leaf.der().clone()], private, &provider).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Identity {
            spiffe_id: spiffe_id.into(),
            key: Arc::new(key),
            roots: BTreeMap::from([("cluster.local".into(), Arc::new(roots))]),
        }
    }
}

pub(crate) fn termination(alpn: &[&str]) -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        shows: Shown::Workload,
        believes: Some(Believed::of_mesh([])),
        require_client_certificate: true,
        require_server_name: false,
        alpn: alpn.iter().map(|each| (*each).into()).collect(),
        versions: Versions::NEWEST,
        handshake_timeout: None,
    })
}

/// STRICT: HTTP by ALPN, bytes without; nothing in the clear.
pub(crate) fn inbound() -> ListenerConfig {
    let mut requests = http(all_to(Forward::to("app")));
    requests.client_certificate = ForwardClientCertificate::AppendForward;
    requests.client_certificate_details.uri = true;
    let by_alpn = FilterChain {
        matches: ChainMatch {
            transport: Some(TransportProtocol::Tls),
            application_protocols: vec!["h2".into(), "http/1.1".into()],
            ..ChainMatch::default()
        },
        tls: Some(termination(&["h2", "http/1.1"])),
        ..chain(filter(requests))
    };
    let opaque = FilterChain {
        matches: ChainMatch {
            transport: Some(TransportProtocol::Tls),
            ..ChainMatch::default()
        },
        tls: Some(termination(&[])),
        ..chain(tcp("app"))
    };
    ListenerConfig {
        direction: Direction::Inbound,
        filter_chains: vec![by_alpn, opaque],
        default_chain: None,
        inspect_tls: true,
        ..listener(tcp("app"))
    }
}

pub(crate) fn over_tls(address: SocketAddr, expected: &str) -> ClusterConfig {
    ClusterConfig {
        transport: Transport::Tls(Arc::new(UpstreamTls::of_workload([TextMatch::exact(
            expected,
        )]))),
        ..cluster("reviews", &[address])
    }
}

async fn server(authority: &Authority, app: SocketAddr) -> Proxy {
    let configuration = configuration([inbound()], [cluster("app", &[app])]);
    Proxy::start_as(configuration, known(authority.identity(REVIEWS))).await
}

async fn client(authority: &Authority, server: &Proxy, expected: &str) -> Proxy {
    let requests = filter(http(all_to(Forward::to("reviews"))));
    let configuration = configuration([listener(requests)], [over_tls(server.address, expected)]);
    Proxy::start_as(configuration, known(authority.identity(PRODUCTPAGE))).await
}

/// Two proxies with mutual TLS between them, and an application behind the second; the first is the client's.
pub(crate) async fn mutual_tls(app: SocketAddr) -> (Proxy, Proxy) {
    let authority = Authority::new();
    let server = server(&authority, app).await;
    let client = client(&authority, &server, REVIEWS).await;
    (client, server)
}

/// The same for bytes that are no HTTP.
pub(crate) async fn opaque_mutual_tls(app: SocketAddr) -> (Proxy, Proxy) {
    let authority = Authority::new();
    let server = server(&authority, app).await;
    let opaque = configuration(
        [listener(tcp("reviews"))],
        [over_tls(server.address, REVIEWS)],
    );
    let client = Proxy::start_as(opaque, known(authority.identity(PRODUCTPAGE))).await;
    (client, server)
}

/// A proxy that serves nothing but mutual TLS.
pub(crate) async fn strict() -> Proxy {
    server(&Authority::new(), ([127, 0, 0, 1], 1).into()).await
}

#[tokio::test]
async fn two_proxies_speak_mutual_tls_and_keep_the_version_of_the_caller() {
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    let server = server(&authority, app.address).await;
    let client = client(&authority, &server, REVIEWS).await;
    let versions = [
        (Client::http1(client.address).await, "HTTP/1.1"),
        (Client::http2(client.address).await, "HTTP/2.0"),
    ];

    for (mut caller, version) in versions {
        let got = caller.get("/x").await;

        assert_eq!(got.status, 200, "{got:?}");
        assert!(
            got.body.lines().next().unwrap().ends_with(version),
            "{}",
            got.body
        );
        let by = format!("x-forwarded-client-cert: By={REVIEWS};Hash=");
        assert!(got.body.contains(&by), "{}", got.body);
        assert!(
            got.body.contains(&format!(";URI={PRODUCTPAGE}\n")),
            "{}",
            got.body
        );
    }
    let report = server.reports.request(0).await;
    assert_eq!(report.downstream.principal.as_deref(), Some(PRODUCTPAGE));
    assert!(
        client
            .reports
            .request(0)
            .await
            .upstream
            .unwrap()
            .is_mutual_tls
    );
}

#[tokio::test]
async fn opaque_bytes_go_through_mutual_tls_too() {
    let authority = Authority::new();
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = server(&authority, app.local_addr().unwrap()).await;
    let opaque = configuration(
        [listener(tcp("reviews"))],
        [over_tls(server.address, REVIEWS)],
    );
    let client = Proxy::start_as(opaque, known(authority.identity(PRODUCTPAGE))).await;

    let mut caller = TcpStream::connect(client.address).await.unwrap();
    let (mut served, _) = app.accept().await.unwrap();
    served.write_all(b"welcome").await.unwrap();
    let mut welcome = [0; 7];
    caller.read_exact(&mut welcome).await.unwrap();
    caller.write_all(b"thanks").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut thanks = String::new();
    served.read_to_string(&mut thanks).await.unwrap();

    assert_eq!((&welcome, thanks.as_str()), (b"welcome", "thanks"));
    drop(served);
    let report = server.reports.closed(0).await;
    assert_eq!(report.downstream.principal.as_deref(), Some(PRODUCTPAGE));
}

#[tokio::test]
async fn plaintext_is_refused_where_only_tls_is_served() {
    let (authority, app) = (Authority::new(), Upstream::named("app").await);
    let server = server(&authority, app.address).await;

    let mut caller = TcpStream::connect(server.address).await.unwrap();
    caller
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut nothing = vec![];
    let _ = caller.read_to_end(&mut nothing).await;

    assert!(nothing.is_empty());
    assert_eq!(app.requests(), 0);
    let live = Arc::clone(&server.data_plane.snapshot().listeners[LISTENER].live);
    until(|| live.plaintext_refused.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn a_server_of_another_identity_is_not_spoken_to() {
    let (authority, app) = (Authority::new(), Upstream::named("app").await);
    let server = server(&authority, app.address).await;
    let ratings = "spiffe://cluster.local/ns/default/sa/ratings";
    let client = client(&authority, &server, ratings).await;

    let got = client.get("/").await;

    assert_eq!(got.status, 503);
    let reason = got.header("x-weft-reason").unwrap();
    assert!(reason.contains(REVIEWS), "{reason}");
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let app = Upstream::named("app").await;
    let server = server(&authority, app.address).await;
    // It believes the server, but the server has no reason to believe it.
    let mut identity = stranger.identity(PRODUCTPAGE);
    identity.roots = authority.identity(PRODUCTPAGE).roots;
    let requests = filter(http(all_to(Forward::to("reviews"))));
    let strange = configuration([listener(requests)], [over_tls(server.address, REVIEWS)]);
    let client = Proxy::start_as(strange, known(identity)).await;

    assert_eq!(client.get("/").await.status, 503);

    assert_eq!(app.requests(), 0);
    let live = Arc::clone(&server.data_plane.snapshot().listeners[LISTENER].live);
    until(|| live.tls_failures.load(Ordering::Relaxed) > 0).await;
}

#[tokio::test]
async fn a_renewed_identity_closes_no_connection() {
    let (authority, app) = (Authority::new(), Upstream::named("app").await);
    let server = server(&authority, app.address).await;
    let (renew, identity) =
        tokio::sync::watch::channel(Some(Arc::new(authority.identity(PRODUCTPAGE))));
    let requests = filter(http(all_to(Forward::to("reviews"))));
    let configuration = configuration([listener(requests)], [over_tls(server.address, REVIEWS)]);
    let client = Proxy::start_as(configuration, identity).await;
    let mut caller = Client::http1(client.address).await;
    assert_eq!(caller.get("/").await.status, 200);

    renew.send_replace(Some(Arc::new(authority.identity(PRODUCTPAGE))));

    for _ in 0..5 {
        assert_eq!(caller.get("/").await.status, 200);
    }
    assert_eq!(app.connections(), 1);
}
