//! Belief in a peer that the socket broker has introduced.
//!
//! The broker vouches for the workload at the other end of a local channel, as a handshake would by proof of the key.
//! All else is as in a handshake: the certificates must name that workload, be valid now, and come from a root of
//! its trust domain; and the peer must be among those expected.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::KeyUsage;
use weft_proto::handoff::Introduction;

use super::peer::{PeerError, PeerVerifier, refused, spiffe_id};
use crate::config::identity::Identity;
use crate::config::tls::NameMatch;

/// Which side the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It takes connections.
    Server,
    /// It makes them.
    Client,
}

/// The peer's SPIFFE id, where it is believed.
///
/// # Errors
/// What a handshake would have said.
pub fn believe(
    identity: &Arc<Identity>,
    introduction: &Introduction,
    expected: &[NameMatch],
    side: Side,
) -> Result<Arc<str>, rustls::Error> {
    let chain: Vec<CertificateDer<'_>> = introduction
        .certificates
        .0
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let (leaf, intermediates) = chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let usage = match side {
        Side::Server => KeyUsage::server_auth(),
        Side::Client => KeyUsage::client_auth(),
    };
    let verifier = PeerVerifier::new(Arc::clone(identity), expected.to_vec(), true);
    verifier.verify(leaf, intermediates, UnixTime::now(), usage)?;
    let id = spiffe_id(leaf)?;
    let path = id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    if path == Some(&introduction.workload) {
        Ok(id.into())
    } else {
        Err(refused(PeerError::NotIntroduced {
            certified: id.to_owned(),
            introduced: introduction.workload.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use weft_proto::handoff::Certificates;

    use super::*;
    use crate::config::matching::TextMatch;
    use crate::config::tls::Believed;
    use crate::identity::testing::Authority;

    const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn identity(authority: &Authority, id: &str) -> Arc<Identity> {
        let stored = authority.issue(id);
        let credentials = stored.check(SystemTime::now()).expect("valid");
        credentials.identity
    }

    /// A workload that shows somebody's certificates.
    fn introduced(workload: &str, shown: &Identity) -> Introduction {
        let chain = shown.key.cert.iter().map(|der| der.to_vec());
        Introduction {
            workload: workload.to_owned(),
            certificates: Certificates(chain.collect()),
            source: [10, 96, 0, 2].into(),
            destination: ([10, 96, 0, 3], 80).into(),
            protocol: None,
            server_name: None,
        }
    }

    #[test]
    fn a_peer_is_believed_as_in_a_handshake() {
        let (authority, strange) = (Authority::new(), Authority::new());
        let own = identity(&authority, "spiffe://cluster.local/ns/default/sa/front");
        let reviews = introduced("/ns/default/sa/reviews", &identity(&authority, REVIEWS));
        let judged = |introduction: &Introduction, expected: &[TextMatch]| {
            let expected = Believed::of_mesh(expected.iter().cloned()).names;
            believe(&own, introduction, &expected, Side::Server).map_err(|error| error.to_string())
        };

        assert_eq!(judged(&reviews, &[]).as_deref(), Ok(REVIEWS));
        assert_eq!(
            judged(&reviews, &[TextMatch::exact(REVIEWS)]).as_deref(),
            Ok(REVIEWS)
        );
        let unexpected = judged(
            &reviews,
            &[TextMatch::exact("spiffe://cluster.local/ns/default/sa/x")],
        );
        assert!(unexpected.unwrap_err().contains("Unexpected"));
        let forged = introduced("/ns/default/sa/reviews", &identity(&strange, REVIEWS));
        assert!(judged(&forged, &[]).is_err());
        let bare = Introduction {
            certificates: Certificates::default(),
            ..reviews
        };
        assert!(judged(&bare, &[]).is_err());
    }

    #[test]
    fn certificates_of_another_workload_prove_nothing() {
        let authority = Authority::new();
        let own = identity(&authority, "spiffe://cluster.local/ns/default/sa/front");
        let borrowed = introduced("/ns/default/sa/ratings", &identity(&authority, REVIEWS));

        let judged = believe(&own, &borrowed, &[], Side::Client);

        let error = judged.expect_err("borrowed").to_string();
        assert!(error.contains("/ns/default/sa/ratings"), "{error}");
    }
}
