//! A signed identity: the key made here, the chain that was signed for it, and the roots to trust.
//!
//! Nothing is believed of what the control plane sends before it was checked: the chain must be for our key, name
//! the identity that was told, and not have ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use weft_proto::spiffe::{InvalidSpiffeId, SpiffeId};
use weft_proto::weft::identity::v1::{SignResponse, TrustBundle};

use crate::config::identity::Identity;
use crate::tls::peer::spiffe_id;

/// As it is kept on disk.
#[derive(Clone, PartialEq, Message)]
pub struct StoredCredentials {
    /// PKCS#8, DER.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// What was signed for it.
    #[prost(message, optional, tag = "2")]
    pub signed: Option<SignResponse>,
}

/// An identity, ready to use.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// For TLS.
    pub identity: Arc<Identity>,
    /// The roots as they came, DER, by trust domain: to be shown.
    pub roots: BTreeMap<String, Vec<Vec<u8>>>,
    /// When the certificate ends.
    pub not_after: SystemTime,
    /// When to ask for the next.
    pub renew_at: SystemTime,
}

/// Why a signed identity is not used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCredentials {
    /// There is no chain.
    #[error("the answer holds no certificate")]
    NoCertificate,
    /// The key or the chain is none, or they don't belong together.
    #[error("the certificate is not for our key")]
    Certificate(#[source] rustls::Error),
    /// The identity is not a workload's.
    #[error("the signed identity")]
    SpiffeId(#[source] InvalidSpiffeId),
    /// The certificate names somebody else.
    #[error("the certificate names {certified:?}, the answer says {told:?}")]
    OtherName {
        /// In the certificate.
        certified: String,
        /// In the answer.
        told: String,
    },
    /// Nobody would be believed.
    #[error("no roots for trust domain {0}")]
    NoRoots(String),
    /// A root is no certificate.
    #[error("a root of trust domain {domain}")]
    Root {
        /// Whose.
        domain: String,
        /// What is wrong.
        source: rustls::Error,
    },
    /// It is over.
    #[error("the certificate has ended")]
    Ended,
}

impl StoredCredentials {
    /// Checks everything.
    pub fn check(&self, now: SystemTime) -> Result<Credentials, InvalidCredentials> {
        let SignResponse {
            chain,
            bundles,
            spiffe_id: told,
            not_after,
            renew_at,
        } = self
            .signed
            .as_ref()
            .ok_or(InvalidCredentials::NoCertificate)?;
        let not_after = at(*not_after);
        if not_after <= now {
            return Err(InvalidCredentials::Ended);
        }
        let id: SpiffeId = told.parse().map_err(InvalidCredentials::SpiffeId)?;
        let key = certified(chain, &self.key)?;
        check_name(&key, told)?;
        let roots = roots(bundles)?;
        if !roots.contains_key(id.trust_domain()) {
            return Err(InvalidCredentials::NoRoots(id.trust_domain().to_owned()));
        }
        Ok(Credentials {
            identity: Arc::new(Identity {
                spiffe_id: told.as_str().into(),
                key,
                roots,
            }),
            roots: bundles
                .iter()
                .map(|bundle| {
                    let roots = bundle.roots.iter().map(|root| root.to_vec()).collect();
                    (bundle.trust_domain.clone(), roots)
                })
                .collect(),
            not_after,
            renew_at: sensible_renewal(at(*renew_at), now, not_after),
        })
    }
}

fn certified(
    chain: &[impl AsRef<[u8]>],
    key: &[u8],
) -> Result<Arc<CertifiedKey>, InvalidCredentials> {
    let chain: Vec<_> = chain
        .iter()
        .map(|der| CertificateDer::from(der.as_ref().to_vec()))
        .collect();
    if chain.is_empty() {
        return Err(InvalidCredentials::NoCertificate);
    }
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified =
        CertifiedKey::from_der(chain, key, &provider).map_err(InvalidCredentials::Certificate)?;
    certified
        .keys_match()
        .map_err(InvalidCredentials::Certificate)?;
    Ok(Arc::new(certified))
}

fn check_name(key: &CertifiedKey, told: &str) -> Result<(), InvalidCredentials> {
    let leaf = key
        .end_entity_cert()
        .map_err(InvalidCredentials::Certificate)?;
    let certified = spiffe_id(leaf).map_err(InvalidCredentials::Certificate)?;
    if certified == told {
        return Ok(());
    }
    Err(InvalidCredentials::OtherName {
        certified: certified.to_owned(),
        told: told.to_owned(),
    })
}

fn roots(
    bundles: &[TrustBundle],
) -> Result<BTreeMap<Arc<str>, Arc<RootCertStore>>, InvalidCredentials> {
    bundles
        .iter()
        .map(
            |TrustBundle {
                 trust_domain,
                 roots,
             }| {
                let mut store = RootCertStore::empty();
                for root in roots {
                    store
                        .add(CertificateDer::from(root.to_vec()))
                        .map_err(|source| InvalidCredentials::Root {
                            domain: trust_domain.clone(),
                            source,
                        })?;
                }
                if store.is_empty() {
                    return Err(InvalidCredentials::NoRoots(trust_domain.clone()));
                }
                Ok((trust_domain.as_str().into(), Arc::new(store)))
            },
        )
        .collect()
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// As told; halfway to the end where what was told is no time before the last tenth of the certificate's life.
fn sensible_renewal(told: SystemTime, now: SystemTime, not_after: SystemTime) -> SystemTime {
    let left = not_after.duration_since(now).unwrap_or_default();
    let latest = now + left.mul_f64(0.9);
    if told <= latest { told } else { now + left / 2 }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Authority;
    use super::*;

    const ID: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn now() -> SystemTime {
        SystemTime::now()
    }

    #[test]
    fn what_was_signed_for_our_key_is_used() {
        let credentials = Authority::new().issue(ID).check(now()).expect("valid");

        assert_eq!(&*credentials.identity.spiffe_id, ID);
        assert!(credentials.identity.roots.contains_key("cluster.local"));
        assert!(credentials.renew_at < credentials.not_after);
    }

    #[test]
    fn a_chain_for_another_key_is_refused() {
        let authority = Authority::new();
        let mut stored = authority.issue(ID);
        stored.key = authority.issue(ID).key;

        assert!(matches!(
            stored.check(now()),
            Err(InvalidCredentials::Certificate(_))
        ));
    }

    #[test]
    fn a_certificate_of_somebody_else_is_refused() {
        let mut stored = Authority::new().issue(ID);
        stored.signed.as_mut().expect("signed").spiffe_id =
            "spiffe://cluster.local/ns/default/sa/ratings".into();

        assert!(matches!(
            stored.check(now()),
            Err(InvalidCredentials::OtherName { .. })
        ));
    }

    #[test]
    fn what_has_ended_is_refused() {
        let stored = Authority::new().issue(ID);

        let later = now() + Duration::from_secs(48 * 60 * 60);

        assert!(matches!(
            stored.check(later),
            Err(InvalidCredentials::Ended)
        ));
    }

    #[test]
    fn an_answer_without_our_trust_domain_is_refused() {
        let mut stored = Authority::new().issue(ID);
        stored.signed.as_mut().expect("signed").bundles[0].trust_domain = "elsewhere".into();

        assert!(matches!(
            stored.check(now()),
            Err(InvalidCredentials::NoRoots(_))
        ));
    }

    #[test]
    fn a_renewal_told_for_after_the_end_is_moved_well_before_it() {
        let (now, end) = (UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(100));

        assert_eq!(
            sensible_renewal(end, now, end),
            now + Duration::from_secs(50)
        );
        assert_eq!(sensible_renewal(now, now, end), now);
    }
}
