//! TLS towards clients and towards endpoints.
//!
//! With the workload's identity: TLS 1.3 only, X25519MLKEM768 preferred. A peer is who its SPIFFE id says, and its
//! certificate must chain to the roots of that very trust domain. With certificates from the configuration: what that
//! says. A new identity makes new configurations: open connections go on, and no session of an old identity is resumed.

pub mod authority;
pub mod client;
pub mod introduced;
pub mod io;
pub mod peer;
pub mod pem;
pub mod server;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

use crate::config::identity::{Identity, IdentityReceiver};
use crate::config::tls::{Shown, Versions};

/// The cryptography, with hybrid post-quantum key exchange preferred, and of AES, as Envoy does, the shorter key: bytes in
/// quantity cost a tenth less.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let is_short = |suite: &CipherSuite| {
            matches!(
                suite,
                CipherSuite::TLS13_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            )
        };
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_short(&suite.suite()));
        Arc::new(provider)
    });
    &PROVIDER
}

fn versions(versions: Versions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match (versions.has_1_2, versions.has_1_3) {
        (true, true) => &BOTH,
        (true, false) => &BOTH[1..],
        (false, _) => &BOTH[..1],
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate has not been signed yet.
    #[error("the proxy has no identity yet: the control plane has not signed one")]
    NoIdentity,
    /// There is nothing to show to clients.
    #[error("there is no certificate to show")]
    NoCertificate,
    /// It has been asked for by name, and nobody has sent it yet.
    #[error("the secret {0:?} is not there yet")]
    NoSecret(Arc<str>),
    /// The identity cannot be used.
    #[error("making a TLS configuration")]
    Configuration(#[from] rustls::Error),
}

/// The workload's identity where it is taken: configurations are made for one.
struct CurrentIdentity(Option<Arc<Identity>>);

impl CurrentIdentity {
    fn of(identity: &IdentityReceiver, is_needed: bool) -> Result<Self, TlsError> {
        if !is_needed {
            return Ok(CurrentIdentity(None));
        }
        let current = identity.borrow().clone().ok_or(TlsError::NoIdentity)?;
        Ok(CurrentIdentity(Some(current)))
    }

    fn get(&self) -> Result<Arc<Identity>, TlsError> {
        self.0.clone().ok_or(TlsError::NoIdentity)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }
}

/// The keys of what is shown.
fn shown(shows: &Shown, identity: &CurrentIdentity) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    Ok(match shows {
        Shown::Nothing => vec![],
        Shown::Workload => vec![Arc::clone(&identity.get()?.key)],
        Shown::Certificates(all) => all.iter().map(|each| Arc::clone(&each.key)).collect(),
        Shown::Secret(name) => return Err(TlsError::NoSecret(Arc::clone(name))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_is_preferred() {
        let first = provider().kx_groups.first().expect("a group");

        assert_eq!(first.name(), rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn aes_with_the_shorter_key_is_preferred() {
        let first = provider().cipher_suites.first().expect("a suite");

        assert_eq!(first.suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}
