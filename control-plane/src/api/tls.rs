//! TLS on the API's port, beside plain HTTP: kubectl sends its token over TLS only.
//!
//! The certificate is the API's own, signed by itself: `$WEFT_HOME/api.crt` is what clients trust. With it comes
//! `$WEFT_HOME/kubeconfig`, which names address, certificate and token, so that
//! `kubectl --kubeconfig $WEFT_HOME/kubeconfig` just works.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use x509_parser::parse_x509_certificate;

const CERTIFICATE: &str = "api.crt";
const KEY: &str = "api.key";
const KUBECONFIG: &str = "kubeconfig";

/// How long a certificate holds, and how long before its end a start makes a new one.
const LIFETIME: Duration = Duration::from_secs(825 * 24 * 60 * 60);
const RENEWAL: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("the API's certificate: {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("making the API's certificate")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not fit.
    #[error(
        "the API's certificate and key in {home} cannot be used: remove {CERTIFICATE} and {KEY}, and the next start makes new ones"
    )]
    Use {
        /// Where they are.
        home: PathBuf,
    },
}

/// Reads the API's certificate, or makes one where there is none, where it ends soon, or is for another address; and
/// says how the port is served with it.
pub(crate) fn open(home: &Path, address: SocketAddr) -> Result<Arc<ServerConfig>, TlsError> {
    if !is_good(home, address.ip()) {
        make(home, address.ip())?;
    }
    configure(home).ok_or_else(|| TlsError::Use {
        home: home.to_owned(),
    })
}

fn configure(home: &Path) -> Option<Arc<ServerConfig>> {
    let certificate = CertificateDer::from_pem_file(home.join(CERTIFICATE)).ok()?;
    let key = PrivateKeyDer::from_pem_file(home.join(KEY)).ok()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .ok()?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Some(Arc::new(config))
}

/// Whether what is there will do: for this address, and for a while.
fn is_good(home: &Path, address: IpAddr) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(home.join(CERTIFICATE)) else {
        return false;
    };
    let Ok((_, certificate)) = parse_x509_certificate(&der) else {
        return false;
    };
    let soon = SystemTime::now() + RENEWAL;
    let soon = soon
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let holds =
        u64::try_from(certificate.validity().not_after.timestamp()).is_ok_and(|end| end > soon);
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let is_named = names.is_some_and(|names| {
        names.value.general_names.iter().any(|name| {
            matches!(name, x509_parser::extensions::GeneralName::IPAddress(bytes) if *bytes == octets)
        })
    });
    holds && is_named && home.join(KEY).exists()
}

fn make(home: &Path, address: IpAddr) -> Result<(), TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "weft API");
    for address in [
        address,
        [127, 0, 0, 1].into(),
        "::1".parse().unwrap_or(address),
    ] {
        let name = SanType::IpAddress(address);
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + LIFETIME).into();
    let certificate = params.self_signed(&key)?;
    write(&home.join(KEY), 0o600, key.serialize_pem().as_bytes())?;
    write(&home.join(CERTIFICATE), 0o644, certificate.pem().as_bytes())
}

/// Writes what kubectl needs to reach the API. JSON, which is YAML too.
pub(crate) fn write_kubeconfig(home: &Path, address: SocketAddr) -> Result<(), TlsError> {
    let read = |name: &str| {
        let path = home.join(name);
        fs::read_to_string(&path).map_err(|source| TlsError::File { path, source })
    };
    let certificate = STANDARD.encode(read(CERTIFICATE)?);
    let token = read("token")?;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "weft",
        "clusters": [{"name": "weft", "cluster": {
            "server": format!("https://{}", reachable(address)),
            "certificate-authority-data": certificate,
        }}],
        "users": [{"name": "weft", "user": {"token": token.trim()}}],
        "contexts": [{"name": "weft", "context": {"cluster": "weft", "user": "weft"}}],
    });
    write(
        &home.join(KUBECONFIG),
        0o600,
        format!("{config:#}\n").as_bytes(),
    )
}

/// An address that is listened on everywhere is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => ([127, 0, 0, 1], v6.port()).into(),
        address => address,
    }
}

/// In one step, with its mode from the first byte on.
fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), TlsError> {
    let beside = path.with_extension("new");
    let attempt = || {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    attempt().map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        "127.0.0.1:15080".parse().unwrap()
    }

    #[test]
    fn the_certificate_stays_across_restarts() {
        let home = tempfile::tempdir().unwrap();
        open(home.path(), address()).unwrap();
        let first = fs::read(home.path().join(CERTIFICATE)).unwrap();

        open(home.path(), address()).unwrap();

        assert_eq!(fs::read(home.path().join(CERTIFICATE)).unwrap(), first);
    }

    #[test]
    fn another_address_needs_another_certificate() {
        let home = tempfile::tempdir().unwrap();
        open(home.path(), address()).unwrap();
        let first = fs::read(home.path().join(CERTIFICATE)).unwrap();

        open(home.path(), "192.0.2.1:1".parse().unwrap()).unwrap();

        assert_ne!(fs::read(home.path().join(CERTIFICATE)).unwrap(), first);
    }

    #[test]
    fn a_broken_certificate_is_made_anew() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(CERTIFICATE), "nonsense").unwrap();

        assert!(open(home.path(), address()).is_ok());
    }
}
