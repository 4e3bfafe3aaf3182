//! TLS towards endpoints: one configuration for each transport and identity.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsConnector;

use super::authority::AuthorityVerifier;
use super::peer::PeerVerifier;
use super::{CurrentIdentity, TlsError, provider, shown, versions};
use crate::cluster::endpoint::TlsTransport;
use crate::config::identity::IdentityReceiver;
use crate::config::tls::{Anchor, UpstreamTls};

/// What is kept in a transport's slot.
#[derive(Default)]
struct Built(Mutex<Option<(CurrentIdentity, Arc<ClientConfig>)>>);

/// Connects as the current identity, where the transport takes it.
pub fn connector(
    transport: &TlsTransport,
    identity: &IdentityReceiver,
) -> Result<TlsConnector, TlsError> {
    let identity = CurrentIdentity::of(identity, transport.config.needs_identity())?;
    let mut built = transport.built.get_or_init(Built::default).0.lock();
    if let Some((of, config)) = &*built
        && of.is_same(&identity)
    {
        return Ok(TlsConnector::from(Arc::clone(config)));
    }
    let config = Arc::new(build(&transport.config, &identity)?);
    *built = Some((identity, Arc::clone(&config)));
    Ok(TlsConnector::from(config))
}

/// Connects as the configuration says, which must not take the workload's identity.
pub fn connector_of_configuration(tls: &UpstreamTls) -> Result<TlsConnector, TlsError> {
    let config = build(tls, &CurrentIdentity(None))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name asked for: the configured one, else the address, which is not sent and keeps the sessions of
/// endpoints apart.
pub fn server_name(tls: &UpstreamTls, address: IpAddr) -> ServerName<'static> {
    tls.sni
        .as_ref()
        .and_then(|name| ServerName::try_from(name.to_string()).ok())
        .unwrap_or_else(|| ServerName::IpAddress(address.into()))
}

fn build(tls: &UpstreamTls, identity: &CurrentIdentity) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions(tls.versions))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(tls, identity)?);
    let keys = shown(&tls.shows, identity)?;
    Ok(match keys.is_empty() {
        true => builder.with_no_client_auth(),
        false => builder.with_client_cert_resolver(Arc::new(OwnCertificates(keys))),
    })
}

fn verifier(
    tls: &UpstreamTls,
    identity: &CurrentIdentity,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    Ok(match &tls.believes.anchor {
        Anchor::TrustBundle => {
            let names = tls.believes.names.clone();
            Arc::new(PeerVerifier::new(identity.get()?, names, true))
        }
        Anchor::Secret(name) => return Err(TlsError::NoSecret(Arc::clone(name))),
        Anchor::Roots(_) | Anchor::Nobody => {
            Arc::new(AuthorityVerifier::new(tls.believes.clone(), true))
        }
    })
}

/// The first certificate that the server can verify.
#[derive(Debug)]
struct OwnCertificates(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for OwnCertificates {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let mut keys = self.0.iter();
        keys.find(|key| key.key.choose_scheme(schemes).is_some())
            .cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}
