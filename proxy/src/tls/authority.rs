//! Belief in peers by the word of configured authorities, or of nobody.
//!
//! Names of hosts mean nothing by themselves, as in Envoy: which names are believed is configured.

mod chain;

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use sha2::{Digest, Sha256};
use webpki::KeyUsage;
use x509_parser::prelude::{FromDer, X509Certificate};

use self::chain::Shown;
use super::provider;
use crate::certificate::Names;
use crate::config::tls::{Anchor, Believed, Roots};

/// Why a peer is not believed, although somebody vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotBelieved {
    /// It is somebody else.
    #[error("the peer's certificate is for {0:?}, which is not among the names expected")]
    Names(Vec<String>),
    /// Its certificate or its key is another one.
    #[error("the peer's certificate is not among those pinned")]
    Pins,
}

/// Verifies peers, of either side.
#[derive(Debug)]
pub(super) struct AuthorityVerifier {
    believed: Believed,
    roots: Option<Arc<Roots>>,
    hints: Vec<DistinguishedName>,
    is_mandatory: bool,
}

impl AuthorityVerifier {
    pub(super) fn new(believed: Believed, is_mandatory: bool) -> Self {
        let roots = match &believed.anchor {
            Anchor::Roots(roots) => Some(Arc::clone(roots)),
            _ => None,
        };
        let hints = roots.as_ref().map(|roots| roots.store.subjects());
        AuthorityVerifier {
            hints: hints.unwrap_or_default(),
            roots,
            believed,
            is_mandatory,
        }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        if let Some(roots) = &self.roots {
            let shown = Shown {
                leaf,
                intermediates,
                usage,
            };
            chain::verify(roots, &self.believed, &shown, now)?;
        }
        let certificate = X509Certificate::from_der(leaf);
        let (_, certificate) = certificate
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        self.verify_names(&Names::read(&certificate))?;
        self.verify_pins(leaf, certificate.public_key().raw)
    }

    fn verify_names(&self, names: &Names) -> Result<(), rustls::Error> {
        let wanted = &self.believed.names;
        if wanted.is_empty() || wanted.iter().any(|wanted| names.is_match(wanted)) {
            return Ok(());
        }
        let shown = names.alternative.iter().map(|(_, name)| name.clone());
        Err(refused(NotBelieved::Names(shown.collect())))
    }

    fn verify_pins(&self, leaf: &[u8], key: &[u8]) -> Result<(), rustls::Error> {
        let Believed {
            certificate_hashes,
            key_hashes,
            ..
        } = &self.believed;
        let is_pinned = |pins: &[[u8; 32]], bytes: &[u8]| {
            let hash: [u8; 32] = Sha256::digest(bytes).into();
            pins.contains(&hash)
        };
        let has_none = certificate_hashes.is_empty() && key_hashes.is_empty();
        if has_none || is_pinned(certificate_hashes, leaf) || is_pinned(key_hashes, key) {
            return Ok(());
        }
        Err(refused(NotBelieved::Pins))
    }
}

fn refused(error: NotBelieved) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}

impl ServerCertVerifier for AuthorityVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for AuthorityVerifier {
    /// A client that has several certificates chooses by them.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }
}
