//! TLS with the workload's identity, towards clients and towards endpoints.
//!
//! TLS 1.3 only, X25519MLKEM768 preferred. A peer is who its SPIFFE id says, and its certificate must chain
//! to the roots of that very trust domain; names of hosts mean nothing. A new identity makes new
//! configurations: open connections go on, and no session of an old identity is resumed.

pub mod client;
pub mod introduced;
pub mod io;
pub mod peer;
pub mod server;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// Versions that are spoken.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The cryptography, with hybrid post-quantum key exchange preferred.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    &PROVIDER
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate has not been signed yet.
    #[error("the proxy has no identity yet: the control plane has not signed one")]
    NoIdentity,
    /// The identity cannot be used.
    #[error("making a TLS configuration")]
    Configuration(#[from] rustls::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_is_preferred() {
        let first = provider().kx_groups.first().expect("a group");

        assert_eq!(first.name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
