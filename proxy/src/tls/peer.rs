//! Who the peer is: its SPIFFE id, vouched for by the roots of its own trust domain.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::provider;
use crate::config::identity::Identity;
use crate::config::tls::{NameKind, NameMatch};

/// Why a peer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// SPIFFE X.509-SVID §2: exactly one URI SAN.
    #[error("the peer's certificate has {0} URI names instead of one SPIFFE id")]
    NotOneName(usize),
    /// The URI is none of SPIFFE's.
    #[error("the peer's certificate names {0:?}, which is no SPIFFE id")]
    NotSpiffe(String),
    /// Nobody vouches for that trust domain.
    #[error("the trust domain of {0:?} is not trusted")]
    UnknownTrustDomain(String),
    /// It is somebody, but not who was asked for.
    #[error("the peer is {0:?}, which is not among the identities expected")]
    Unexpected(String),
    /// The certificate is not that of the workload which the broker knows to be there.
    #[error("the certificate names {certified:?}, and the broker introduced {introduced:?}")]
    NotIntroduced {
        /// In the certificate.
        certified: String,
        /// The path of the SPIFFE id that was to be expected.
        introduced: String,
    },
}

/// The SPIFFE id in a certificate. Says nothing about who vouches for it.
pub fn spiffe_id<'a>(certificate: &'a CertificateDer<'_>) -> Result<&'a str, rustls::Error> {
    let certificate = EndEntityCert::try_from(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let mut names = certificate.valid_uri_names();
    let first = names.next();
    let more = names.count();
    match first {
        Some(name) if more == 0 && name.starts_with("spiffe://") => Ok(name),
        Some(name) if more == 0 => Err(refused(PeerError::NotSpiffe(name.to_owned()))),
        _ => Err(refused(PeerError::NotOneName(
            usize::from(first.is_some()) + more,
        ))),
    }
}

fn trust_domain(spiffe_id: &str) -> &str {
    let rest = spiffe_id.strip_prefix("spiffe://").unwrap_or_default();
    rest.split('/').next().unwrap_or_default()
}

pub(super) fn refused(error: PeerError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Verifies peers, of either side.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    identity: Arc<Identity>,
    /// Empty: everybody who is somebody.
    expected: Vec<NameMatch>,
    is_mandatory: bool,
}

impl PeerVerifier {
    pub(super) fn new(
        identity: Arc<Identity>,
        expected: Vec<NameMatch>,
        is_mandatory: bool,
    ) -> Self {
        PeerVerifier {
            identity,
            expected,
            is_mandatory,
        }
    }

    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        let id = spiffe_id(leaf)?;
        let roots = self
            .identity
            .roots
            .get(trust_domain(id))
            .ok_or_else(|| refused(PeerError::UnknownTrustDomain(id.to_owned())))?;
        EndEntityCert::try_from(leaf)
            .and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        provider().signature_verification_algorithms.all,
                        &roots.roots,
                        intermediates,
                        now,
                        usage,
                        None,
                        None,
                    )
                    .map(|_| ())
            })
            .map_err(chain_error)?;
        let is_expected =
            self.expected.is_empty() || self.expected.iter().any(|each| is_called(id, each));
        if is_expected {
            Ok(())
        } else {
            Err(refused(PeerError::Unexpected(id.to_owned())))
        }
    }

    fn verify_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

/// A SPIFFE id is a URI.
fn is_called(id: &str, wanted: &NameMatch) -> bool {
    matches!(wanted.kind, None | Some(NameKind::Uri)) && wanted.text.is_match(id)
}

pub(super) fn chain_error(error: webpki::Error) -> rustls::Error {
    let error = match error {
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    rustls::Error::InvalidCertificate(error)
}

/// TLS 1.2 is never negotiated.
fn no_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken".to_owned())
}

impl ServerCertVerifier for PeerVerifier {
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
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// No hints: the trust domains of a mesh are nobody's business before the handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
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
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| SanType::URI((*name).try_into().expect("ASCII")))
            .collect();
        let key = KeyPair::generate().expect("a key");
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .clone()
    }

    #[test]
    fn the_spiffe_id_is_the_only_uri_name() {
        let id = "spiffe://cluster.local/ns/default/sa/reviews";

        assert_eq!(spiffe_id(&certificate(&[id])), Ok(id));
        assert!(spiffe_id(&certificate(&[])).is_err());
        assert!(spiffe_id(&certificate(&[id, id])).is_err());
        assert!(spiffe_id(&certificate(&["https://example.com"])).is_err());
    }

    #[test]
    fn a_trust_domain_is_what_comes_before_the_path() {
        assert_eq!(
            trust_domain("spiffe://cluster.local/ns/a/sa/b"),
            "cluster.local"
        );
        assert_eq!(trust_domain("spiffe://cluster.local"), "cluster.local");
    }
}
