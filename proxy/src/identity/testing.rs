//! An authority for the tests of this module.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use weft_proto::weft::identity::v1::{SignResponse, TrustBundle};

use super::credentials::StoredCredentials;

/// Signs for tests.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new root.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("a root"),
        }
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A key and what was signed for it, good for a day.
    pub(crate) fn issue(&self, spiffe_id: &str) -> StoredCredentials {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().expect("a URI"))];
        let leaf = params.signed_by(&key, &self.issuer).expect("signed");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let seconds = |time: Duration| i64::try_from(time.as_secs()).expect("small");
        StoredCredentials {
            key: key.serialize_der(),
            signed: Some(SignResponse {
                chain: vec![leaf.der().to_vec().into()],
                bundles: vec![TrustBundle {
                    trust_domain: "cluster.local".into(),
                    roots: vec![self.issuer.der().to_vec().into()],
                }],
                spiffe_id: spiffe_id.into(),
                not_after: seconds(now + Duration::from_secs(24 * 60 * 60)),
                renew_at: seconds(now + Duration::from_secs(12 * 60 * 60)),
            }),
        }
    }
}
