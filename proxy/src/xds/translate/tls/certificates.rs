//! Certificates, keys and authorities, in PEM.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use weft_proto::envoy::config::core::v3::DataSource;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::TlsCertificate;

use super::super::at::{At, Invalid, harmless, required, unsupported};
use super::super::data_source::data_source;
use crate::config::tls::{Certificate, NameKind, Roots};
use crate::tls::names::Names;

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
        watched_directory,
        pkcs12,
        tls_params,
    } = wire;
    unsupported!(at; password, private_key_provider, watched_directory, pkcs12, tls_params);
    harmless!(at; ocsp_staple, signed_certificate_timestamp);
    let at_chain = at.field("certificate_chain");
    let chain = chain(&at_chain, required(&at_chain, certificate_chain.as_ref())?)?;
    let at_key = at.field("private_key");
    let source = required(&at_key, private_key.as_ref())?;
    let pem = data_source(&at_key, source, MAX_BYTES)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| at_key.refuse(format_args!("no private key in PEM: {error}")))?;
    let names = chain.first().map(Names::of).unwrap_or_default();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| at.refuse(error))?;
    key.keys_match().map_err(|error| at.refuse(error))?;
    Ok(Certificate {
        key: Arc::new(key),
        hosts: names.all(NameKind::Host).map(str::to_owned).collect(),
    })
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
    })
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
