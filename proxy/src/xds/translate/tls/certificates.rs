//! Certificates, keys and authorities, in PEM.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use weft_proto::envoy::config::core::v3::DataSource;
use weft_proto::envoy::config::core::v3::data_source::Specifier;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::TlsCertificate;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::at::{At, Invalid, harmless, required, unsupported};
use super::super::control_plane::watched_directory;
use super::super::data_source::data_source;
use crate::certificate::Names;
use crate::config::tls::{Certificate, NameKind, Revoked, Roots};

/// No more is read of a file.
const MAX_BYTES: usize = 4 << 20;

/// A chain and its key.
pub(super) fn certificate(at: &At<'_>, wire: &TlsCertificate) -> Result<Certificate, Invalid> {
    let TlsCertificate {
        certificate_chain,
        private_key,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        private_key_provider,
        watched_directory: directory,
        pkcs12,
        tls_params,
    } = wire;
    unsupported!(at; password, private_key_provider, pkcs12, tls_params);
    harmless!(at; ocsp_staple, signed_certificate_timestamp);
    if let Some(directory) = directory {
        at.watches(watched_directory(
            &at.field("watched_directory"),
            directory,
        )?);
    }
    let at_chain = at.field("certificate_chain");
    let source = required(&at_chain, certificate_chain.as_ref())?;
    let origin = origin(source);
    let chain = chain(&at_chain, source)?;
    let at_key = at.field("private_key");
    let source = required(&at_key, private_key.as_ref())?;
    let pem = data_source(&at_key, source, MAX_BYTES)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| at_key.refuse(format_args!("no private key in PEM: {error}")))?;
    let names = chain.first().map(Names::of).unwrap_or_default();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let signing = provider.key_provider.load_private_key(key);
    let signing = signing.map_err(|error| at_key.refuse(error))?;
    belongs_to(at, chain.first(), &*signing)?;
    Ok(Certificate {
        key: Arc::new(CertifiedKey::new(chain, signing)),
        hosts: names.all(NameKind::Host).map(str::to_owned).collect(),
        origin,
    })
}

/// Whether a key is that of a certificate. Not with `CertifiedKey::keys_match`, which wants X.509 version 3: what many
/// tools make without being told otherwise is version 1, and may be shown by a server.
fn belongs_to(
    at: &At<'_>,
    certificate: Option<&CertificateDer<'_>>,
    key: &dyn SigningKey,
) -> Result<(), Invalid> {
    let bytes = required(at, certificate)?;
    let (_, parsed) = X509Certificate::from_der(bytes)
        .map_err(|error| at.refuse(format_args!("no certificate: {error}")))?;
    match key.public_key() {
        Some(public) if public.as_ref() != parsed.public_key().raw => {
            Err(at.refuse("the private key is another certificate's"))
        }
        _ => Ok(()),
    }
}

/// Authorities.
pub(super) fn roots(at: &At<'_>, wire: &DataSource) -> Result<Roots, Invalid> {
    let certificates = chain(at, wire)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| at.refuse(error))?;
    }
    Ok(Roots {
        store,
        certificates,
        origin: origin(wire),
    })
}

/// In Envoy's words.
fn origin(wire: &DataSource) -> Arc<str> {
    match &wire.specifier {
        Some(Specifier::Filename(path)) => path.as_str().into(),
        _ => "<inline>".into(),
    }
}

/// Lists of revoked certificates.
pub(super) fn revoked(
    at: &At<'_>,
    wire: &DataSource,
    of_leaves_only: bool,
) -> Result<Revoked, Invalid> {
    let pem = data_source(at, wire, MAX_BYTES)?;
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| {
            at.refuse(format_args!(
                "no lists of revoked certificates in PEM: {error}"
            ))
        })?;
    if lists.is_empty() {
        return Err(at.refuse("no lists of revoked certificates in PEM"));
    }
    let revoked = Revoked::by(lists, of_leaves_only);
    revoked.map_err(|error| at.refuse(format_args!("no list of revoked certificates: {error}")))
}

fn chain(at: &At<'_>, wire: &DataSource) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let pem = data_source(at, wire, MAX_BYTES)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| at.refuse(format_args!("no certificates in PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(at.refuse("no certificates in PEM"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::super::super::at::Notes;
    use super::*;

    /// What `openssl x509 -req` makes where it is told of no extensions. It is nobody's, and ends in a hundred years.
    const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBKTCBzwIUYQN7uDA2wdpYY5EaARDmiWnGe4kwCgYIKoZIzj0EAwIwFjEUMBIG
A1UEAwwLb2xkLmV4YW1wbGUwIBcNMjYxMTIxMTM0ODIzWhgPMjEyNjEwMjgxMzQ4
MjNaMBYxFDASBgNVBAMMC29sZC5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEyCnLFS5MqgWq38pLB66MLzLlYN8t28BbJcS7DiLF6KDt9A5gwNjLyXL6
NSLz1E5Ee44LgRNr9KtKf/KDCwsmQTAKBggqhkjOPQQDAgNJADBGAiEAhje2p3fN
MgTvqEdfU/ylOvRSnEO99H1yLY3aHYFMmGoCIQDI9BLlIlIJXfUUSNb1hhOIBo6k
NQnUGbSJUZgk3coNaA==
-----END CERTIFICATE-----
";
    const ITS_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgF2Z323YaJCOiLJ/o
ex7D1d8iXuNXPw32JLEPnPipfB6hRANCAATIKcsVLkyqBarfyksHrowvMuVg3y3b
wFslxLsOIsXooO30DmDA2MvJcvo1IvPUTkR7jguBE2v0q0p/8oMLCyZB
-----END PRIVATE KEY-----
";

    #[test]
    fn a_certificate_of_version_1_may_be_shown() {
        let source = |text: &str| {
            Some(DataSource {
                specifier: Some(Specifier::InlineString(text.to_owned())),
                ..DataSource::default()
            })
        };
        let wire = TlsCertificate {
            certificate_chain: source(VERSION_1),
            private_key: source(ITS_KEY),
            ..TlsCertificate::default()
        };

        let notes = Notes::default();
        let certificate = certificate(&At::root(&notes), &wire).expect("valid");

        assert_eq!(certificate.key.cert.len(), 1);
    }
}
