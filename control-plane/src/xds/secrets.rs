//! SDS for clients that do not make a key of their own: certificate and trust bundle as ordinary secrets.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use weft_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use weft_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use weft_proto::names;
use weft_proto::spiffe::SpiffeId;

use crate::ca::{Authority, CaError, Issued};
use crate::translate::resource::{Resource, ResourceMap, insert};

/// The secrets of one client.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    pub(super) map: Arc<ResourceMap>,
    /// When they must be made anew.
    pub(super) renew_at: SystemTime,
}

impl Secrets {
    /// Makes a key and has it signed.
    pub(super) fn issue(
        authority: &Authority,
        identity: &SpiffeId,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let issued = authority.issue(identity, now)?;
        let mut map = ResourceMap::new();
        insert(&mut map, certificate(&issued));
        insert(&mut map, trust_bundle(authority));
        Ok(Self {
            map: Arc::new(map),
            renew_at: issued.signed.renew_at,
        })
    }

    /// Only what is no secret, for clients that nobody vouches for.
    pub(super) fn public(authority: &Authority) -> Self {
        let mut map = ResourceMap::new();
        insert(&mut map, trust_bundle(authority));
        Self {
            map: Arc::new(map),
            renew_at: SystemTime::now() + crate::ca::LEAF_LIFETIME,
        }
    }
}

fn certificate(issued: &Issued) -> Resource {
    let secret = tls::Secret {
        name: names::SECRET_IDENTITY.to_owned(),
        r#type: Some(tls::secret::Type::TlsCertificate(tls::TlsCertificate {
            certificate_chain: Some(inline(pem(&issued.signed.chain))),
            private_key: Some(inline(issued.key_pem.clone())),
            ..tls::TlsCertificate::default()
        })),
    };
    Resource::encode(names::SECRET_IDENTITY, &secret)
}

fn trust_bundle(authority: &Authority) -> Resource {
    let secret = tls::Secret {
        name: names::SECRET_TRUST_BUNDLE.to_owned(),
        r#type: Some(tls::secret::Type::ValidationContext(
            tls::CertificateValidationContext {
                trusted_ca: Some(inline(pem(&authority.roots()))),
                ..tls::CertificateValidationContext::default()
            },
        )),
    };
    Resource::encode(names::SECRET_TRUST_BUNDLE, &secret)
}

fn inline(text: String) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(text.into())),
        ..DataSource::default()
    }
}

/// RFC 7468: lines of 64 characters.
fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = STANDARD.encode(certificate);
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(64));
            text.push_str(&rest);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn certificates_survive_pem() {
        let certificates = [vec![7_u8; 100].into(), vec![8_u8; 48].into()];

        let text = pem(&certificates);

        let read: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .map(Result::unwrap)
            .collect();
        assert_eq!(read, certificates);
    }
}
