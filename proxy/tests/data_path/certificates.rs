//! TLS with certificates of the configuration's own, against clients and servers of rustls.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_proxy::config::cluster::{ClusterConfig, Transport};
use weft_proxy::config::http::ForwardClientCertificate;
use weft_proxy::config::listener::{FilterChain, ListenerConfig};
use weft_proxy::config::matching::TextMatch;
use weft_proxy::config::route::Forward;
use weft_proxy::config::tls::{
    Anchor, Believed, Certificate, DownstreamTls, NameKind, NameMatch, Roots, Shown, UpstreamTls,
    Versions,
};

use crate::config::{all_to, chain, cluster, configuration, filter, http, listener};
use crate::proxy::Proxy;
use crate::upstream::Upstream;

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as a client or server of rustls takes them.
struct Issued {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, host: &str) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(host.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Issued {
            chain: vec![leaf.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }

    fn certificate(&self, host: &str) -> Arc<Certificate> {
        let Issued { chain, key } = self.issue(host);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Arc::new(Certificate {
            key: Arc::new(CertifiedKey::from_der(chain, key, &provider).unwrap()),
            hosts: vec![host.to_owned()],
            origin: "<inline>".into(),
        })
    }

    fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(self.0.der().clone()).unwrap();
        store
    }

    fn believed(&self, names: &[&str]) -> Believed {
        let name = |name: &&str| NameMatch {
            kind: Some(NameKind::Host),
            text: TextMatch::exact(name),
        };
        Believed {
            names: names.iter().map(name).collect(),
            ..Believed::by(Anchor::Roots(Arc::new(Roots {
                store: self.store(),
                certificates: vec![self.0.der().clone()],
                origin: "<inline>".into(),
            })))
        }
    }
}

const ALL_VERSIONS: Versions = Versions {
    has_1_2: true,
    has_1_3: true,
};

fn terminating(shown: Vec<Arc<Certificate>>, believes: Option<Believed>) -> DownstreamTls {
    DownstreamTls {
        shows: Shown::Certificates(shown),
        require_client_certificate: believes.is_some(),
        believes,
        require_server_name: false,
        alpn: vec!["h2".into(), "http/1.1".into()],
        versions: ALL_VERSIONS,
        handshake_timeout: None,
    }
}

async fn serving(tls: DownstreamTls, app: &Upstream) -> Proxy {
    let mut requests = http(all_to(Forward::to("app")));
    requests.client_certificate = ForwardClientCertificate::SanitizeSet;
    requests.client_certificate_details.hosts = true;
    let chain = FilterChain {
        tls: Some(Arc::new(tls)),
        ..chain(filter(requests))
    };
    let listener = ListenerConfig {
        default_chain: Some(chain),
        ..listener(crate::config::tcp("app"))
    };
    Proxy::start(configuration([listener], [cluster("app", &[app.address])])).await
}

/// A client of rustls.
struct Caller<'a> {
    trusts: &'a Authority,
    shows: Option<Issued>,
    alpn: &'a [&'a str],
    version: &'static SupportedProtocolVersion,
}

impl<'a> Caller<'a> {
    fn trusting(trusts: &'a Authority) -> Self {
        Caller {
            trusts,
            shows: None,
            alpn: &[],
            version: &rustls::version::TLS13,
        }
    }

    async fn connect(self, proxy: &Proxy, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(self.trusts.store());
        let mut config = match self.shows {
            Some(Issued { chain, key }) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|each| each.as_bytes().into())
            .collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect(proxy.address).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

/// A request of HTTP/1.1 on a connection, and all that comes back.
async fn asked(mut stream: TlsStream<TcpStream>) -> std::io::Result<String> {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn tls_is_ended_with_the_certificate_for_the_name_asked_for() {
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    let shown = vec![
        authority.certificate("a.example"),
        authority.certificate("*.b.example"),
    ];
    let proxy = serving(terminating(shown, None), &app).await;

    for name in ["a.example", "x.b.example"] {
        let stream = Caller::trusting(&authority).connect(&proxy, name).await;
        let answer = asked(stream.expect("the name is in the certificate")).await;
        assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
    }
    let other = Caller::trusting(&authority)
        .connect(&proxy, "c.example")
        .await;
    assert!(other.is_err(), "no certificate is for that name");
}

#[tokio::test]
async fn a_client_may_speak_tls_1_2_where_it_is_allowed() {
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    let older = || Caller {
        version: &rustls::version::TLS12,
        ..Caller::trusting(&authority)
    };
    let both = terminating(vec![authority.certificate("a.example")], None);
    let newest = DownstreamTls {
        versions: Versions::NEWEST,
        ..both.clone()
    };
    let (both, newest) = (serving(both, &app).await, serving(newest, &app).await);

    let stream = older().connect(&both, "a.example").await.expect("1.2");
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );
    assert!(asked(stream).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(older().connect(&newest, "a.example").await.is_err());
}

#[tokio::test]
async fn protocols_that_are_not_accepted_are_served_without_negotiation() {
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    let tls = terminating(vec![authority.certificate("a.example")], None);
    let proxy = serving(tls, &app).await;

    for (alpn, negotiated) in [
        (&["http/1.1"][..], Some(&b"http/1.1"[..])),
        (&["spdy/3"], None),
    ] {
        let caller = Caller {
            alpn,
            ..Caller::trusting(&authority)
        };
        let stream = caller.connect(&proxy, "a.example").await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), negotiated);
        assert!(asked(stream).await.unwrap().starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn clients_are_those_that_the_authority_vouches_for_and_the_upstream_is_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let app = Upstream::echoing().await;
    let believes = authority.believed(&["client.example"]);
    let tls = terminating(vec![authority.certificate("a.example")], Some(believes));
    let proxy = serving(tls, &app).await;
    let as_client = |shows| Caller {
        shows,
        ..Caller::trusting(&authority)
    };

    let known = as_client(Some(authority.issue("client.example")));
    let stream = known.connect(&proxy, "a.example").await.expect("TLS");
    let answer = asked(stream).await.unwrap();
    assert!(
        answer.contains("x-forwarded-client-cert: Hash="),
        "{answer}"
    );
    assert!(answer.contains(";DNS=client.example\n"), "{answer}");

    for shows in [
        None,
        Some(authority.issue("other.example")),
        Some(stranger.issue("client.example")),
    ] {
        // With TLS 1.3 a client learns only from its first read that it was refused.
        let refused = match as_client(shows).connect(&proxy, "a.example").await {
            Ok(stream) => asked(stream).await.err(),
            Err(error) => Some(error),
        };
        assert!(refused.is_some());
    }
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn an_endpoint_is_who_the_authority_says_and_is_called_as_expected() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let app = Upstream::echoing().await;
    let server = terminating(vec![authority.certificate("a.example")], None);
    let server = serving(server, &app).await;
    let to = |believes| {
        let tls = UpstreamTls {
            shows: Shown::Nothing,
            believes,
            sni: Some("a.example".into()),
            alpn: vec![],
            versions: ALL_VERSIONS,
        };
        Proxy::to(ClusterConfig {
            transport: Transport::Tls(Arc::new(tls)),
            ..cluster("server", &[server.address])
        })
    };

    for believed in [
        authority.believed(&["a.example"]),
        authority.believed(&[]),
        Believed::by(Anchor::Nobody),
    ] {
        assert_eq!(to(believed).await.get("/").await.status, 200);
    }
    for believed in [
        authority.believed(&["b.example"]),
        stranger.believed(&["a.example"]),
    ] {
        assert_eq!(to(believed).await.get("/").await.status, 503);
    }
}
