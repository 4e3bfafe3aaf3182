//! Whether authorities vouch for a certificate: the chain to one of them, its time, and what they have revoked.

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::tls::{Believed, Roots};
use crate::tls::peer::chain_error;
use crate::tls::provider;

/// How many certificates of a chain may be out of their time, each in its own way.
const MAX_EXPIRED: usize = 8;

/// What a peer shows, and what for.
pub(super) struct Shown<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) intermediates: &'a [CertificateDer<'a>],
    pub(super) usage: KeyUsage,
}

/// A certificate that is itself among the roots needs nobody else's word.
pub(super) fn verify(
    roots: &Roots,
    believed: &Believed,
    shown: &Shown<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let verified = match believed.allows_expired {
        true => verify_whenever(roots, believed, shown, now),
        false => verify_at(roots, believed, shown, now),
    };
    match verified {
        Err(webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity)
            if is_valid_root(roots, believed, shown.leaf, now) =>
        {
            Ok(())
        }
        verified => verified.map_err(chain_error),
    }
}

/// At a time at which all of it is valid, if not now.
fn verify_whenever(
    roots: &Roots,
    believed: &Believed,
    shown: &Shown<'_>,
    now: UnixTime,
) -> Result<(), webpki::Error> {
    let mut verified = verify_at(roots, believed, shown, now);
    for _ in 0..MAX_EXPIRED {
        let valid = match verified {
            Err(webpki::Error::CertExpired { not_after, .. }) => not_after,
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => not_before,
            _ => break,
        };
        verified = verify_at(roots, believed, shown, valid);
    }
    verified
}

fn verify_at(
    roots: &Roots,
    believed: &Believed,
    shown: &Shown<'_>,
    at: UnixTime,
) -> Result<(), webpki::Error> {
    let lists: Vec<_> = believed.revoked.lists().collect();
    let certificate = EndEntityCert::try_from(shown.leaf)?;
    certificate.verify_for_usage(
        provider().signature_verification_algorithms.all,
        &roots.store.roots,
        shown.intermediates,
        at,
        shown.usage,
        revocation(believed, &lists),
        None,
    )?;
    Ok(())
}

/// As Envoy: who has a list vouches for nobody of whom no list tells, or an old one.
fn revocation<'a>(
    believed: &Believed,
    lists: &'a [&'a webpki::CertRevocationList<'static>],
) -> Option<RevocationOptions<'a>> {
    let depth = match believed.revoked.of_leaves_only {
        true => RevocationCheckDepth::EndEntity,
        false => RevocationCheckDepth::Chain,
    };
    // Without a list nothing is asked for.
    let options = RevocationOptionsBuilder::new(lists).ok()?;
    let options = options
        .with_depth(depth)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Enforce);
    Some(options.build())
}

fn is_valid_root(
    roots: &Roots,
    believed: &Believed,
    leaf: &CertificateDer<'_>,
    now: UnixTime,
) -> bool {
    let is_root = roots.certificates.iter().any(|root| **root == **leaf);
    let is_valid = || {
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let validity = certificate.validity();
        let now = i64::try_from(now.as_secs()).ok()?;
        Some((validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now))
    };
    is_root && (believed.allows_expired || is_valid().unwrap_or(false))
}
