//! The authority, checked with another library's eyes.

use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, SanType};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn now() -> SystemTime {
    NOW + Duration::from_secs(1_800_000_000)
}

fn identity() -> SpiffeId {
    "spiffe://cluster.local/ns/default/sa/reviews"
        .parse()
        .unwrap()
}

fn authority() -> (tempfile::TempDir, Arc<Authority>) {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::open(&home.path().join("ca"), "cluster.local", now()).unwrap();
    (home, authority)
}

fn request(names: &[&str]) -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| SanType::URI((*name).try_into().unwrap()))
        .collect();
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn parse<'a>(certificate: &'a CertificateDer<'static>) -> X509Certificate<'a> {
    x509_parser::parse_x509_certificate(certificate).unwrap().1
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        other => panic!("{other:?}"),
    };
    names.value.general_names.iter().map(uri).collect()
}

#[test]
fn the_chain_leads_to_the_root() {
    let (_home, authority) = authority();

    let signed = authority.sign(&request(&[]), &identity(), now()).unwrap();

    let (leaf, issuing) = (parse(&signed.chain[0]), parse(&signed.chain[1]));
    let roots = authority.roots();
    let root = parse(&roots[0]);
    leaf.verify_signature(Some(issuing.public_key())).unwrap();
    issuing.verify_signature(Some(root.public_key())).unwrap();
    root.verify_signature(None).unwrap();
    assert!(root.is_ca() && issuing.is_ca() && !leaf.is_ca());
    assert_eq!(
        root.basic_constraints()
            .unwrap()
            .unwrap()
            .value
            .path_len_constraint,
        Some(1)
    );
}

#[test]
fn names_come_from_attestation_and_not_from_the_request() {
    let (_home, authority) = authority();
    let hostile = request(&["spiffe://cluster.local/ns/kube-system/sa/admin"]);

    let signed = authority.sign(&hostile, &identity(), now()).unwrap();

    assert_eq!(
        uris(&parse(&signed.chain[0])),
        ["spiffe://cluster.local/ns/default/sa/reviews"]
    );
}

#[test]
fn a_workload_may_serve_and_call_for_a_day() {
    let (_home, authority) = authority();

    let signed = authority.sign(&request(&[]), &identity(), now()).unwrap();

    let leaf = parse(&signed.chain[0]);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth);
    assert_eq!(leaf.validity().not_before.timestamp(), seconds(now()) - 60);
    assert_eq!(
        leaf.validity().not_after.timestamp(),
        seconds(now()) + 86_400
    );
    assert_eq!(signed.not_after, now() + LEAF_LIFETIME);
}

#[test]
fn renewal_is_due_at_about_two_thirds() {
    let end = now() + LEAF_LIFETIME;
    let hours = |chance| {
        renewal_time(now(), end, chance)
            .duration_since(now())
            .unwrap()
            .as_secs_f64()
            / 3600.0
    };

    assert!((14.7..14.9).contains(&hours(0.0)));
    assert!((17.1..17.3).contains(&hours(1.0)));
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let (_home, authority) = authority();
    let mut forged = request(&[]);
    // The signature is what ends the request; its last bytes are a number, so another one is well-formed too.
    let last = forged.len() - 1;
    forged[last] ^= 1;

    let refused = authority.sign(&forged, &identity(), now()).unwrap_err();

    assert!(matches!(refused, CaError::Request { .. }), "{refused}");
}

#[test]
fn no_bytes_make_it_panic() {
    let (_home, authority) = authority();
    let good = request(&["spiffe://a/ns/b/sa/c"]);
    for length in 0..good.len() {
        assert!(authority.sign(&good[..length], &identity(), now()).is_err());
    }
    for position in 0..good.len() {
        let mut changed = good.clone();
        changed[position] = !changed[position];
        let _ = authority.sign(&changed, &identity(), now());
    }
}

#[test]
fn it_is_the_same_authority_after_a_restart() {
    let (home, authority) = authority();

    let again = Authority::open(&home.path().join("ca"), "cluster.local", now()).unwrap();

    assert_eq!(again.roots(), authority.roots());
    assert_eq!(
        again.issuing.load().certificate,
        authority.issuing.load().certificate
    );
}

#[test]
fn the_issuing_authority_is_renewed_long_before_it_ends() {
    let (_home, authority) = authority();
    let before = authority.issuing.load().certificate.clone();
    let later = now() + Duration::from_secs(61 * 24 * 60 * 60);

    let signed = authority.sign(&request(&[]), &identity(), later).unwrap();

    assert_ne!(signed.chain[1], before);
    let roots = authority.roots();
    parse(&signed.chain[1])
        .verify_signature(Some(parse(&roots[0]).public_key()))
        .unwrap();
}

#[test]
fn keys_are_readable_by_their_owner_only() {
    let (home, _authority) = authority();
    let mode = |path: &str| {
        let metadata = std::fs::metadata(home.path().join(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };

    assert_eq!(mode("ca"), 0o700);
    for file in ["ca/root.pem", "ca/issuing.pem"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn a_missing_root_is_an_error_and_never_a_new_root() {
    let (home, _authority) = authority();
    std::fs::remove_file(home.path().join("ca/root.pem")).unwrap();

    let error = Authority::open(&home.path().join("ca"), "cluster.local", now())
        .err()
        .unwrap();

    assert!(error.to_string().contains("root.pem is missing"), "{error}");
}

#[test]
fn what_was_signed_is_remembered() {
    let (_home, authority) = authority();

    authority.sign(&request(&[]), &identity(), now()).unwrap();

    let certificates = authority.certificates(now());
    assert_eq!(certificates.len(), 1);
    assert_eq!(certificates[0].identity, identity().to_string());
    assert_eq!(certificates[0].not_after, seconds(now()) + 86_400);
    assert_eq!(authority.certificates(now() + LEAF_LIFETIME).len(), 0);
    assert_eq!(authority.authorities().len(), 2);
}
