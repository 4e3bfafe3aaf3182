//! TLS towards endpoints: one configuration for each transport and identity.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsConnector;

use super::peer::PeerVerifier;
use super::{TlsError, VERSIONS, provider};
use crate::cluster::endpoint::TlsTransport;
use crate::config::cluster::UpstreamTls;
use crate::config::identity::{Identity, IdentityReceiver};

/// What is kept in a transport's slot.
#[derive(Default)]
struct Built(Mutex<Option<(Arc<Identity>, Arc<ClientConfig>)>>);

/// Connects as the current identity.
pub fn connector(
    transport: &TlsTransport,
    identity: &IdentityReceiver,
) -> Result<TlsConnector, TlsError> {
    let identity = identity.borrow().clone().ok_or(TlsError::NoIdentity)?;
    let mut built = transport.built.get_or_init(Built::default).0.lock();
    if let Some((of, config)) = &*built
        && Arc::ptr_eq(of, &identity)
    {
        return Ok(TlsConnector::from(Arc::clone(config)));
    }
    let config = Arc::new(build(&transport.config, &identity)?);
    *built = Some((identity, Arc::clone(&config)));
    Ok(TlsConnector::from(config))
}

/// The name asked for: the configured one, else the address, which is not sent and keeps the sessions of
/// endpoints apart.
pub fn server_name(tls: &UpstreamTls, address: IpAddr) -> ServerName<'static> {
    tls.sni
        .as_ref()
        .and_then(|name| ServerName::try_from(name.to_string()).ok())
        .unwrap_or_else(|| ServerName::IpAddress(address.into()))
}

fn build(tls: &UpstreamTls, identity: &Arc<Identity>) -> Result<ClientConfig, rustls::Error> {
    let verifier = PeerVerifier::new(Arc::clone(identity), tls.peer_identities.clone(), true);
    let config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(OwnCertificate(Arc::clone(&identity.key))));
    Ok(config)
}

/// The workload's one certificate, whoever asks.
#[derive(Debug)]
struct OwnCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OwnCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
