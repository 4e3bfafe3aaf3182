//! What the certificates of the mesh say: root, issuing authority, workload (SPIFFE X.509-SVID).

use std::time::SystemTime;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use weft_proto::spiffe::SpiffeId;

/// From when to when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// Signs issuing authorities.
pub(super) fn root(trust_domain: &str, validity: Validity) -> CertificateParams {
    authority(&format!("weft root of {trust_domain}"), 1, validity)
}

/// Signs workloads.
pub(super) fn issuing(trust_domain: &str, validity: Validity) -> CertificateParams {
    authority(
        &format!("weft issuing authority of {trust_domain}"),
        0,
        validity,
    )
}

/// A workload: its one name is its SPIFFE id, and it serves and calls with it.
pub(super) fn workload(
    identity: &SpiffeId,
    validity: Validity,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = blank(validity);
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The serial number in the name keeps the authorities of two meshes, or of two generations, apart.
fn authority(name: &str, path_length: u8, validity: Validity) -> CertificateParams {
    let mut params = blank(validity);
    let generation = rand::random::<u32>();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{name} {generation:08x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn blank(validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.serial_number = Some(serial_number());
    params
}

/// 127 random bits: positive, and at most 20 octets (RFC 5280 §4.1.2.2).
fn serial_number() -> SerialNumber {
    let bits = rand::random::<u128>() >> 1 | 1 << 126;
    SerialNumber::from_slice(&bits.to_be_bytes())
}
