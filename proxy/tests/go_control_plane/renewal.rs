//! Certificates that are renewed in files while the proxy runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::mesh::{Application, listening, ready, until_answered};
use super::peer::{Envoy, is_missing};
use super::server::PATIENCE;
use super::sources::{free_port, moved};
use super::tls::{Authority, NAME, control_plane, with_tls};
use super::{EXTENSIONS, proxy, to};

/// Believes anybody.
#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// The certificate that is shown there; none where nobody speaks TLS yet.
async fn shown(address: SocketAddr) -> Option<CertificateDer<'static>> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.ok()?;
    let name = ServerName::try_from(NAME).unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .ok()?;
    let (_, connection) = stream.get_ref();
    connection.peer_certificates()?.first().cloned()
}

async fn until_shown(address: SocketAddr, file: &Path) {
    let expected = CertificateDer::from_pem_file(file).unwrap();
    let found = async {
        while shown(address).await.as_ref() != Some(&expected) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = timeout(PATIENCE, found).await;
    found.unwrap_or_else(|_| panic!("{} is not shown in time", file.display()));
}

/// A listener of opaque bytes with TLS.
fn listener(port: u16, common: &Value) -> Value {
    json!({
        "name": "web",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "filters": [{"name": "tcp", "typed_config": {
                "@type": format!("{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "web",
                "cluster": "app",
            }}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext"),
                "common_tls_context": common,
            }},
        }],
    })
}

fn bootstrap(application: &Application, listener: &Value) -> Value {
    let at = |address: &SocketAddr| super::endpoint(address);
    json!({
        "node": {"id": "node", "cluster": "reviews.default"},
        "static_resources": {
            "listeners": [listener],
            "clusters": [{"name": "app", "load_assignment": {
                "cluster_name": "app",
                "endpoints": [{"lb_endpoints": [at(&application.address)]}],
            }}],
        },
    })
}

/// A certificate and its key in files of a directory, with a directory whose moves tell of new ones.
fn certificate(files: &Path, watched: Option<&Path>) -> Value {
    let file = |name: &str| json!({"filename": files.join(name)});
    let mut certificate = json!({
        "certificate_chain": file("server.pem"),
        "private_key": file("server.key"),
    });
    if let Some(watched) = watched {
        certificate["watched_directory"] = json!({"path": watched});
    }
    certificate
}

/// As Kubernetes mounts secrets: a link to the files of now, which is replaced as a whole.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Self {
        let mount = Mount(tempfile::tempdir().unwrap());
        mount.turn("first");
        mount
    }

    /// Other certificates from now on.
    fn turn(&self, name: &str) {
        let files = self.0.path().join(name);
        fs::create_dir(&files).unwrap();
        Authority::write(&files, "server", NAME);
        let staged = self.0.path().join("staged");
        std::os::unix::fs::symlink(&files, &staged).unwrap();
        fs::rename(staged, self.files()).unwrap();
    }

    fn files(&self) -> std::path::PathBuf {
        self.0.path().join("now")
    }
}

#[tokio::test]
async fn a_certificate_of_a_secret_is_read_again_by_envoy_and_by_weft() {
    let app = Application::start("app").await;
    for name in ["envoy", "weft"] {
        let (dir, mount) = (tempfile::tempdir().unwrap(), Mount::new());
        let port = free_port();
        let secret = json!({
            "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.Secret"),
            "name": "mine",
            "tls_certificate": certificate(&mount.files(), Some(mount.0.path())),
        });
        moved(dir.path(), "sds.json", "1", &[secret]);
        let source = json!({"name": "mine", "sds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": dir.path().join("sds.json")},
        }});
        let common = json!({"tls_certificate_sds_secret_configs": [source]});
        let bootstrap = bootstrap(&app, &listener(port.port(), &common));

        let envoy = (name == "envoy").then(|| Envoy::start(&bootstrap, dir.path()));
        let weft = match name {
            "weft" => Some(proxy(&bootstrap, dir.path()).await),
            _ => None,
        };
        until_shown(port, &mount.files().join("server.pem")).await;
        mount.turn("second");
        until_shown(port, &mount.files().join("server.pem")).await;
        if let Some(envoy) = envoy {
            envoy.kill().await;
        }
        if let Some(weft) = weft {
            weft.shutdown(Duration::ZERO).await;
        }
    }
}

#[tokio::test]
async fn a_certificate_in_the_bootstrap_is_read_again_where_its_directory_is_watched() {
    let (dir, mount) = (tempfile::tempdir().unwrap(), Mount::new());
    let app = Application::start("app").await;
    let common = json!({"tls_certificates": [certificate(&mount.files(), Some(mount.0.path()))]});
    let proxy = proxy(&bootstrap(&app, &listener(0, &common)), dir.path()).await;
    let web = listening(&proxy, "web").await;
    until_shown(web, &mount.files().join("server.pem")).await;

    mount.turn("second");

    until_shown(web, &mount.files().join("server.pem")).await;
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_key_that_does_not_fit_leaves_what_was_read_before() {
    let (dir, mount) = (tempfile::tempdir().unwrap(), Mount::new());
    let app = Application::start("app").await;
    // Read at the same sign as the pair that does not fit: when it is shown, both were read.
    let beside = tempfile::tempdir().unwrap();
    Authority::write(beside.path(), "server", NAME);
    let watched = |files: &Path| {
        let common = json!({"tls_certificates": [certificate(files, Some(mount.0.path()))]});
        listener(0, &common)
    };
    let mut bootstrap = bootstrap(&app, &watched(&mount.files()));
    let mut witness = watched(beside.path());
    witness["name"] = "witness".into();
    let listeners = bootstrap["static_resources"]["listeners"].as_array_mut();
    listeners.unwrap().push(witness);
    let proxy = proxy(&bootstrap, dir.path()).await;
    let web = listening(&proxy, "web").await;
    let witness = listening(&proxy, "witness").await;
    let first = CertificateDer::from_pem_file(mount.files().join("server.pem")).unwrap();

    // The certificate of one with the key of another, and a sign that something was moved.
    let other = tempfile::tempdir().unwrap();
    Authority::write(other.path(), "server", NAME);
    fs::copy(
        other.path().join("server.pem"),
        mount.files().join("server.pem"),
    )
    .unwrap();
    Authority::write(beside.path(), "server", NAME);
    fs::write(mount.0.path().join("staged"), "").unwrap();
    fs::rename(mount.0.path().join("staged"), mount.0.path().join("sign")).unwrap();
    until_shown(witness, &beside.path().join("server.pem")).await;
    assert_eq!(shown(web).await, Some(first.clone()));

    // What comes after is a pair again.
    mount.turn("second");
    until_shown(web, &mount.files().join("server.pem")).await;

    assert_ne!(shown(web).await, Some(first));
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_control_plane_is_shown_the_certificate_of_now() {
    if is_missing("a_control_plane_is_shown_the_certificate_of_now") {
        return;
    }
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::write(dir.path(), "server", NAME);
    Authority::write(dir.path(), "client", "proxy.example");
    let mut control_plane = control_plane(dir.path()).await;
    let blue = Application::start("blue").await;
    control_plane.set("1", &to("app", &blue, 0)).await;
    // One that the control plane does not believe.
    Authority::write(elsewhere.path(), "client", "proxy.example");
    let files = ["client.pem", "client.key"];
    let good = files.map(|file| fs::read(dir.path().join(file)).unwrap());
    for file in files {
        fs::copy(elsewhere.path().join(file), dir.path().join(file)).unwrap();
    }
    let bootstrap = with_tls(dir.path(), control_plane.address, "server-ca.pem");
    let proxy = proxy(&bootstrap, dir.path()).await;
    let refused = async {
        let admin = proxy.admin_address().unwrap();
        loop {
            let (_, metrics) = super::get(admin, "/metrics").await;
            let failed = "weft_xds_connects_total{result=\"failed\"} ";
            let mut lines = metrics.lines();
            let count = lines.find_map(|line| line.strip_prefix(failed));
            if count.is_some_and(|count| count != "0") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("refused in time");

    for (file, content) in files.iter().zip(good) {
        fs::write(dir.path().join(file), content).unwrap();
    }

    ready(&proxy).await;
    until_answered(listening(&proxy, "web").await, "blue").await;
    proxy.shutdown(Duration::ZERO).await;
}
