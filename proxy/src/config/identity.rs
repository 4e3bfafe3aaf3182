//! Who the proxy is, and whom it believes.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

/// An identity with everything TLS needs. Immutable: a renewal makes a new one, and connections made with
/// the old one go on.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `spiffe://…`, as in the certificate.
    pub spiffe_id: Arc<str>,
    /// The chain, leaf first, and its key.
    pub key: Arc<CertifiedKey>,
    /// The roots of each trust domain: a certificate of a trust domain is believed only from its own roots.
    pub roots: BTreeMap<Arc<str>, Arc<RootCertStore>>,
}

/// Where the current identity is found: `None` until the first is there.
pub type IdentityReceiver = tokio::sync::watch::Receiver<Option<Arc<Identity>>>;
