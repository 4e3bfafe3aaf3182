//! TLS of the client and of the upstream, with certificates made for the run.
//!
//! Neither end checks what the proxy is: what was agreed on is shown and compared.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, CommonState, DigitallySignedStruct, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
};

use crate::case::ClientTls;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Bytes as they are, or in TLS.
pub(crate) enum Transport {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Transport {
    /// The end of a client.
    pub(crate) fn client(stream: TcpStream, wanted: &ClientTls) -> Self {
        let versions = match wanted.version.as_deref() {
            Some("1.2") => vec![&rustls::version::TLS12],
            Some("1.3") => vec![&rustls::version::TLS13],
            _ => rustls::ALL_VERSIONS.to_vec(),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Believer));
        let mut config = match &wanted.certificate {
            Some(name) => {
                let (chain, key) = CERTIFICATES.find(name).pair();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = wanted
            .alpn
            .iter()
            .map(|name| name.clone().into_bytes())
            .collect();
        config.enable_sni = wanted.name.is_some();
        let name = wanted.name.clone().unwrap_or_else(|| "nobody.test".into());
        let name = ServerName::try_from(name).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        Self::Client(Box::new(StreamOwned::new(connection, stream)))
    }

    /// The end of an upstream.
    pub(crate) fn server(stream: TcpStream, asks_for_certificate: bool) -> Self {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match asks_for_certificate {
            true => {
                let mut roots = RootCertStore::empty();
                let root = CertificateDer::from_pem_slice(CERTIFICATES.root.as_bytes()).unwrap();
                roots.add(root).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            false => builder.with_no_client_auth(),
        };
        let (chain, key) = CERTIFICATES.find("server").pair();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        Self::Server(Box::new(StreamOwned::new(connection, stream)))
    }

    /// Comes to terms with the proxy, where this is the end of a client; says why it could not.
    pub(crate) fn shake_hands(&mut self) -> Option<String> {
        let Self::Client(stream) = self else {
            return None;
        };
        stream.sock.set_read_timeout(Some(HANDSHAKE)).unwrap();
        let shaken = stream.conn.complete_io(&mut stream.sock);
        shaken.err().as_ref().and_then(failure)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Client(stream) => &stream.sock,
            Self::Server(stream) => &stream.sock,
        }
    }

    /// Sends no more.
    pub(crate) fn half_close(&mut self) {
        self.say_goodbye();
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// Sends no more and reads no more.
    pub(crate) fn close(&mut self) {
        self.say_goodbye();
        let _ = self.socket().shutdown(Shutdown::Both);
    }

    fn say_goodbye(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Client(stream) => stream.conn.send_close_notify(),
            Self::Server(stream) => stream.conn.send_close_notify(),
        }
        let _ = self.flush();
    }

    /// What both sides agreed on: the version, ALPN, SNI, and what the other side's certificate is called.
    pub(crate) fn agreed(&self) -> Option<String> {
        let (state, name): (&CommonState, Option<&str>) = match self {
            Self::Plain(_) => return None,
            Self::Client(stream) => (&stream.conn, None),
            Self::Server(stream) => (&stream.conn, stream.conn.server_name()),
        };
        let version = state.protocol_version()?;
        let alpn = state.alpn_protocol().unwrap_or(b"-").escape_ascii();
        let peer = state.peer_certificates().and_then(|chain| chain.first());
        let peer = peer.map_or("-", |leaf| CERTIFICATES.name_of(leaf));
        Some(format!("{version:?} {alpn} {} {peer}", name.unwrap_or("-")))
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Client(stream) => stream.read(buffer),
            Self::Server(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Client(stream) => stream.write(bytes),
            Self::Server(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Client(stream) => stream.flush(),
            Self::Server(stream) => stream.flush(),
        }
    }
}

/// Why TLS failed, where it was TLS that failed.
pub(crate) fn failure(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(format!("{error:?}"))
}

/// Writes `NAME.pem` and `NAME.key` for each, `ca.pem`, and `ca.crl`, which revokes `friend`.
pub(crate) fn write_certificates(folder: &Path) {
    let write = |name: String, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("ca.pem".into(), &CERTIFICATES.root);
    write("ca.crl".into(), &CERTIFICATES.revoked);
    for issued in &CERTIFICATES.issued {
        write(format!("{}.pem", issued.name), &issued.certificate);
        write(format!("{}.key", issued.name), &issued.key);
    }
}

struct Certificates {
    root: String,
    revoked: String,
    issued: Vec<Issued>,
}

struct Issued {
    name: &'static str,
    certificate: String,
    key: String,
}

/// The same for all runs of one process.
static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    let authority = authority("an authority");
    let unknown = self::authority("another authority");
    let names: [(&str, &[&str]); 5] = [
        ("server", &["server.test", "*.server.test"]),
        ("other", &["other.test"]),
        (
            "client",
            &["client.test", "spiffe://mesh.test/ns/a/sa/client"],
        ),
        (FRIEND, &["spiffe://mesh.test/ns/a/sa/friend"]),
        (PAST, &["spiffe://mesh.test/ns/a/sa/past"]),
    ];
    let mut issued: Vec<Issued> = names
        .iter()
        .map(|(name, subjects)| issue(name, subjects, &authority))
        .collect();
    issued.push(issue("stranger", &["stranger.test"], &unknown));
    Certificates {
        root: authority.pem(),
        revoked: revoked(&authority),
        issued,
    }
});

/// Who is revoked.
const FRIEND: &str = "friend";
const REVOKED: u64 = 7;
/// Whose certificate has ended.
const PAST: &str = "past";

fn revoked(authority: &CertifiedIssuer<'static, KeyPair>) -> String {
    let long_ago = rcgen::date_time_ymd(2020, 1, 1);
    let friend = RevokedCertParams {
        serial_number: SerialNumber::from(REVOKED),
        revocation_time: long_ago,
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: long_ago,
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![friend],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(authority).unwrap().pem().unwrap()
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(
    name: &'static str,
    subjects: &[&str],
    authority: &CertifiedIssuer<'static, KeyPair>,
) -> Issued {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    match name {
        FRIEND => params.serial_number = Some(SerialNumber::from(REVOKED)),
        PAST => params.not_after = rcgen::date_time_ymd(2020, 1, 1),
        _ => {}
    }
    params.subject_alt_names = subjects
        .iter()
        .map(|subject| {
            let text = (*subject).try_into().unwrap();
            match subject.contains("://") {
                true => SanType::URI(text),
                false => SanType::DnsName(text),
            }
        })
        .collect();
    Issued {
        name,
        certificate: params.signed_by(&key, authority).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

impl Certificates {
    fn find(&self, name: &str) -> &Issued {
        let found = self.issued.iter().find(|issued| issued.name == name);
        found.unwrap_or_else(|| panic!("no certificate is called {name}"))
    }

    fn name_of(&self, leaf: &CertificateDer<'_>) -> &'static str {
        let found = self
            .issued
            .iter()
            .find(|issued| issued.pair().0.first() == Some(leaf));
        found.map_or("unknown", |issued| issued.name)
    }
}

impl Issued {
    fn pair(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        (vec![certificate], key)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Believes any certificate.
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
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
