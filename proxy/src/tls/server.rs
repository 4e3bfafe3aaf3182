//! TLS towards clients: one configuration for each chain and identity.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::authority::AuthorityVerifier;
use super::peer::PeerVerifier;
use super::{CurrentIdentity, TlsError, provider, shown, versions};
use crate::config::identity::IdentityReceiver;
use crate::config::tls::{Anchor, Certificate, DownstreamTls, Shown};
use crate::snapshot::chain::TlsTermination;

/// What is kept in a chain's slot.
#[derive(Default)]
struct Built(Mutex<Option<(CurrentIdentity, Configs)>>);

/// More than one, because a client that offers only protocols which are not accepted is served without any, as by Envoy.
#[derive(Clone)]
struct Configs {
    with_alpn: Arc<ServerConfig>,
    without_alpn: Arc<ServerConfig>,
    /// For sidecars that would share a connection; none for others.
    for_streams: Option<Arc<ServerConfig>>,
}

/// The configuration of a chain for the current identity, and for what a client offers by ALPN.
pub fn config(
    termination: &TlsTermination,
    identity: &IdentityReceiver,
    offered: &[String],
) -> Result<Arc<ServerConfig>, TlsError> {
    let tls = &termination.config;
    let identity = CurrentIdentity::of(identity, tls.needs_identity())?;
    let mut built = termination.built.get_or_init(Built::default).0.lock();
    let configs = match &*built {
        Some((of, configs)) if of.is_same(&identity) => configs.clone(),
        _ => {
            let configs = build(termination, &identity)?;
            *built = Some((identity, configs.clone()));
            configs
        }
    };
    let is_offered = |word: &str| offered.iter().any(|each| each == word);
    let would_share = termination.streams.is_some_and(is_offered);
    if let Some(config) = configs.for_streams.as_ref().filter(|_| would_share) {
        return Ok(Arc::clone(config));
    }
    let is_accepted = |protocol: &String| tls.alpn.iter().any(|each| **each == **protocol);
    Ok(match offered.iter().any(is_accepted) {
        true => configs.with_alpn,
        false => configs.without_alpn,
    })
}

fn build(termination: &TlsTermination, identity: &CurrentIdentity) -> Result<Configs, TlsError> {
    let tls = &termination.config;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions(tls.versions))?
        .with_client_cert_verifier(verifier(tls, identity)?)
        .with_cert_resolver(resolver(&tls.shows, identity)?);
    // Stateless tickets, under keys that live as long as this configuration: a new identity resumes nothing.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    let without_alpn = Arc::new(config.clone());
    let for_streams = termination.streams.map(|word| {
        let mut config = config.clone();
        config.alpn_protocols = vec![word.as_bytes().to_vec()];
        Arc::new(config)
    });
    config.alpn_protocols = tls
        .alpn
        .iter()
        .map(|each| each.as_bytes().to_vec())
        .collect();
    Ok(Configs {
        with_alpn: Arc::new(config),
        without_alpn,
        for_streams,
    })
}

fn verifier(
    tls: &DownstreamTls,
    identity: &CurrentIdentity,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(believes) = &tls.believes else {
        return Ok(Arc::new(NoClientAuth));
    };
    let is_mandatory = tls.require_client_certificate;
    Ok(match &believes.anchor {
        Anchor::TrustBundle => {
            let names = believes.names.clone();
            Arc::new(PeerVerifier::new(identity.get()?, names, is_mandatory))
        }
        Anchor::Secret(name) => return Err(TlsError::NoSecret(Arc::clone(name))),
        Anchor::Roots(_) | Anchor::Nobody => {
            Arc::new(AuthorityVerifier::new(believes.clone(), is_mandatory))
        }
    })
}

fn resolver(
    shows: &Shown,
    identity: &CurrentIdentity,
) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
    Ok(match shows {
        Shown::Certificates(certificates) => Arc::new(Suitable(certificates.clone())),
        other => {
            let mut keys = shown(other, identity)?;
            Arc::new(TheOne(keys.pop().ok_or(TlsError::NoCertificate)?))
        }
    })
}

/// The workload's one certificate, whatever is asked for.
#[derive(Debug)]
struct TheOne(Arc<CertifiedKey>);

impl ResolvesServerCert for TheOne {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// The first certificate for the name asked for that the client can verify; else the first that it can verify.
#[derive(Debug)]
struct Suitable(Vec<Arc<Certificate>>);

impl ResolvesServerCert for Suitable {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let is_named = |certificate: &&&Arc<Certificate>| {
            name.as_deref()
                .is_some_and(|name| is_for(certificate, name))
        };
        let known = || {
            let all = self.0.iter();
            all.filter(|each| each.key.key.choose_scheme(schemes).is_some())
        };
        let chosen = known().find(|each| is_named(&each));
        let chosen = chosen.or_else(|| known().next());
        chosen.map(|certificate| Arc::clone(&certificate.key))
    }
}

/// RFC 9525 §6.3: a wildcard stands for one label.
fn is_for(certificate: &Certificate, name: &str) -> bool {
    certificate
        .hosts
        .iter()
        .any(|host| match host.strip_prefix("*.") {
            Some(parent) => name
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => host == name,
        })
}
