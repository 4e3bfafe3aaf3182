//! TLS towards clients: one configuration for each chain and identity.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::peer::PeerVerifier;
use super::{TlsError, VERSIONS, provider};
use crate::config::identity::{Identity, IdentityReceiver};
use crate::config::listener::DownstreamTls;
use crate::snapshot::chain::TlsTermination;

/// What is kept in a chain's slot.
#[derive(Default)]
struct Built(Mutex<Option<(Arc<Identity>, Arc<ServerConfig>)>>);

/// The configuration of a chain for the current identity.
pub fn config(
    termination: &TlsTermination,
    identity: &IdentityReceiver,
) -> Result<Arc<ServerConfig>, TlsError> {
    let identity = identity.borrow().clone().ok_or(TlsError::NoIdentity)?;
    let mut built = termination.built.get_or_init(Built::default).0.lock();
    if let Some((of, config)) = &*built
        && Arc::ptr_eq(of, &identity)
    {
        return Ok(Arc::clone(config));
    }
    let config = Arc::new(build(&termination.config, &identity)?);
    *built = Some((identity, Arc::clone(&config)));
    Ok(config)
}

fn build(tls: &DownstreamTls, identity: &Arc<Identity>) -> Result<ServerConfig, rustls::Error> {
    let verifier = PeerVerifier::new(
        Arc::clone(identity),
        tls.peer_identities.clone(),
        tls.require_client_certificate,
    );
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(OwnCertificate(Arc::clone(&identity.key))));
    config.alpn_protocols = tls
        .alpn
        .iter()
        .map(|each| each.as_bytes().to_vec())
        .collect();
    // Stateless tickets, under keys that live as long as this configuration: a new identity resumes nothing.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// The workload's one certificate, whatever is asked for.
#[derive(Debug)]
struct OwnCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
