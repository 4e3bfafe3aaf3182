//! A control plane with TLS, which wants certificates of its clients.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use weft_proxy::bootstrap::Bootstrap;

use super::mesh::{Application, get, listening, ready, until_answered};
use super::peer::{ControlPlane, Envoy, is_missing};
use super::{EXTENSIONS, bootstrap, proxy, to};

pub(super) const NAME: &str = "control.example";

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Its certificate, and one for a name with its key, as files.
    pub(super) fn write(dir: &Path, prefix: &str, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Another name than that of what it signs, which would be taken for its own issuer.
        let called = format!("the authority {prefix}");
        params.distinguished_name.push(DnType::CommonName, called);
        let key = KeyPair::generate().unwrap();
        let authority = Authority(CertifiedIssuer::self_signed(params, key).unwrap());
        fs::write(dir.join(format!("{prefix}-ca.pem")), authority.0.pem()).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &authority.0).unwrap();
        fs::write(dir.join(format!("{prefix}.pem")), leaf.pem()).unwrap();
        fs::write(dir.join(format!("{prefix}.key")), key.serialize_pem()).unwrap();
        authority
    }
}

/// A control plane that only believes clients of the authority `client`.
pub(super) async fn control_plane(dir: &Path) -> ControlPlane {
    let path = |name: &str| dir.join(name).display().to_string();
    ControlPlane::start_with(&[
        "-cert",
        &path("server.pem"),
        "-key",
        &path("server.key"),
        "-client-ca",
        &path("client-ca.pem"),
    ])
    .await
}

/// Over TLS, believing the authority of this file, showing the certificate `client`.
pub(super) fn with_tls(dir: &Path, address: SocketAddr, authority: &str) -> Value {
    let mut bootstrap = bootstrap("DELTA_GRPC", &[address]);
    let file = |name: &str| json!({"filename": dir.join(name)});
    bootstrap["static_resources"]["clusters"][0]["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"),
            "sni": NAME,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificates": [{
                    "certificate_chain": file("client.pem"),
                    "private_key": file("client.key"),
                }],
                "validation_context": {
                    "trusted_ca": file(authority),
                    "match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": NAME}},
                    ],
                },
            },
        },
    });
    bootstrap
}

#[tokio::test]
async fn both_sides_show_certificates() {
    if is_missing("both_sides_show_certificates") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    Authority::write(dir.path(), "server", NAME);
    Authority::write(dir.path(), "client", "proxy.example");
    let blue = Application::start("blue").await;
    let mut control_plane = control_plane(dir.path()).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    control_plane.set("1", &to("app", &blue, port.port())).await;
    let bootstrap = with_tls(dir.path(), control_plane.address, "server-ca.pem");

    let envoy = Envoy::start(&bootstrap, dir.path());
    until_answered(port, "blue").await;
    envoy.kill().await;
    let proxy = proxy(&bootstrap, dir.path()).await;
    ready(&proxy).await;
    let web = listening(&proxy, "web").await;
    until_answered(web, "blue").await;
    let admin = proxy.admin_address().unwrap();
    let (_, stats) = get(admin, "/stats?filter=control_plane").await;
    assert_eq!(stats, "control_plane.connected_state: 1\n");
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_control_plane_of_another_authority_is_not_believed_and_it_is_said_why() {
    if is_missing("a_control_plane_of_another_authority_is_not_believed_and_it_is_said_why") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    Authority::write(dir.path(), "server", NAME);
    Authority::write(dir.path(), "client", "proxy.example");
    let control_plane = control_plane(dir.path()).await;
    let bootstrap = with_tls(dir.path(), control_plane.address, "client-ca.pem");

    let bootstrap = Bootstrap::parse(&bootstrap.to_string(), Path::new("test")).unwrap();
    let ads = bootstrap.discovery.ads.unwrap();
    let (target, error) = ads.connect(0).await.expect_err("refused");

    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        said.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    assert_eq!(target.to_string(), control_plane.address.to_string());
    assert!(said.contains("invalid peer certificate"), "{said}");
}
