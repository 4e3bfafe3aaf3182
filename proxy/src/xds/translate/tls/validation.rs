//! Which peers are believed.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use weft_proto::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, SdsSecretConfig, SubjectAltNameMatcher,
};
use weft_proto::names::SECRET_TRUST_BUNDLE;

use super::super::at::{At, Invalid, enumeration, harmless, required, unsupported};
use super::super::control_plane::watched_directory;
use super::super::text::text_match;
use super::certificates::{revoked, roots};
use super::secret_name;
use crate::config::tls::{Anchor, Believed, NameKind, NameMatch, Revoked};

pub(super) fn believed(at: &At<'_>, wire: &ValidationContextType) -> Result<Believed, Invalid> {
    match wire {
        ValidationContextType::ValidationContextSdsSecretConfig(secret) => {
            let at = at.field("validation_context_sds_secret_config");
            anchor(&at, secret).map(Believed::by)
        }
        ValidationContextType::CombinedValidationContext(wire) => {
            combined(&at.field("combined_validation_context"), wire)
        }
        ValidationContextType::ValidationContext(wire) => {
            context(&at.field("validation_context"), wire)
        }
        ValidationContextType::ValidationContextCertificateProvider(_) => Err(at
            .field("validation_context_certificate_provider")
            .refuse("not supported")),
        ValidationContextType::ValidationContextCertificateProviderInstance(_) => Err(at
            .field("validation_context_certificate_provider_instance")
            .refuse("not supported")),
    }
}

fn combined(at: &At<'_>, wire: &CombinedCertificateValidationContext) -> Result<Believed, Invalid> {
    let CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = wire;
    unsupported!(at; validation_context_certificate_provider,
        validation_context_certificate_provider_instance);
    let at_secret = at.field("validation_context_sds_secret_config");
    let secret = required(&at_secret, validation_context_sds_secret_config.as_ref())?;
    let anchor = anchor(&at_secret, secret)?;
    let at = at.field("default_validation_context");
    let Some(wire) = default_validation_context else {
        return Ok(Believed::by(anchor));
    };
    if wire.trusted_ca.is_some() {
        return Err(at
            .field("trusted_ca")
            .refuse("the secret says who vouches for peers"));
    }
    // Who vouches is not known here, and will be.
    let mut wire = wire.clone();
    let allows_expired = std::mem::take(&mut wire.allow_expired_certificate);
    let rest = context(&at, &wire)?;
    Ok(Believed {
        anchor,
        allows_expired,
        ..rest
    })
}

fn anchor(at: &At<'_>, wire: &SdsSecretConfig) -> Result<Anchor, Invalid> {
    Ok(match secret_name(at, wire)? {
        SECRET_TRUST_BUNDLE => Anchor::TrustBundle,
        name => Anchor::Secret(name.into()),
    })
}

/// Without authorities everybody is believed who has the right name, or is pinned.
pub(super) fn context(
    at: &At<'_>,
    wire: &CertificateValidationContext,
) -> Result<Believed, Invalid> {
    let CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory: directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = wire;
    unsupported!(at; ca_certificate_provider_instance, system_root_certs,
        require_signed_certificate_timestamp, trust_chain_verification, custom_validator_config);
    harmless!(at; max_verify_depth, suppress_client_ca_list);
    if let Some(directory) = directory {
        at.watches(watched_directory(
            &at.field("watched_directory"),
            directory,
        )?);
    }
    if trusted_ca.is_none() {
        needs_authority(&at.field("crl"), crl.is_some())?;
        needs_authority(
            &at.field("allow_expired_certificate"),
            *allow_expired_certificate,
        )?;
    }
    let revoked = match crl {
        Some(wire) => revoked(&at.field("crl"), wire, *only_verify_leaf_cert_crl)?,
        None => Revoked::default(),
    };
    let trusted = trusted_ca.as_ref();
    let trusted = trusted.map(|wire| roots(&at.field("trusted_ca"), wire));
    let at_hashes = at.field("verify_certificate_hash");
    let at_keys = at.field("verify_certificate_spki");
    Ok(Believed {
        anchor: match trusted.transpose()? {
            Some(roots) => Anchor::Roots(Arc::new(roots)),
            None => Anchor::Nobody,
        },
        names: names(at, match_typed_subject_alt_names, match_subject_alt_names)?,
        certificate_hashes: each(&at_hashes, verify_certificate_hash, hexadecimal)?,
        key_hashes: each(&at_keys, verify_certificate_spki, base64)?,
        revoked,
        allows_expired: *allow_expired_certificate,
    })
}

fn needs_authority(at: &At<'_>, is_set: bool) -> Result<(), Invalid> {
    match is_set {
        true => Err(at.refuse("needs a trusted_ca")),
        false => Ok(()),
    }
}

fn each(
    at: &At<'_>,
    texts: &[String],
    read: fn(&str) -> Option<[u8; 32]>,
) -> Result<Vec<[u8; 32]>, Invalid> {
    let each = texts.iter().enumerate();
    each.map(|(index, text)| read(text).ok_or_else(|| at.index(index).refuse_value(text)))
        .collect()
}

/// 64 digits, with or without colons between the bytes.
fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|character| *character != ':')
        .map(|character| character.to_digit(16))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
        .collect::<Option<_>>()?;
    (digits.len() == 64).then_some(())?;
    bytes.try_into().ok()
}

fn base64(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn names(
    at: &At<'_>,
    typed: &[SubjectAltNameMatcher],
    untyped: &[weft_proto::envoy::r#type::matcher::v3::StringMatcher],
) -> Result<Vec<NameMatch>, Invalid> {
    let at_typed = at.field("match_typed_subject_alt_names");
    let at_untyped = at.field("match_subject_alt_names");
    let typed = typed.iter().enumerate();
    let typed = typed.map(|(index, wire)| name(&at_typed.index(index), wire));
    let untyped = untyped.iter().enumerate().map(|(index, wire)| {
        let text = text_match(&at_untyped.index(index), wire)?;
        Ok(NameMatch { kind: None, text })
    });
    typed.chain(untyped).collect()
}

fn name(at: &At<'_>, wire: &SubjectAltNameMatcher) -> Result<NameMatch, Invalid> {
    let SubjectAltNameMatcher {
        san_type,
        matcher,
        oid,
    } = wire;
    unsupported!(at; oid);
    let kind = match enumeration(&at.field("san_type"), *san_type)? {
        SanType::Uri => NameKind::Uri,
        SanType::Dns => NameKind::Host,
        SanType::Email => NameKind::Email,
        SanType::IpAddress => NameKind::Address,
        other => return Err(at.field("san_type").refuse_value(other)),
    };
    let at = at.field("matcher");
    let text = text_match(&at, required(&at, matcher.as_ref())?)?;
    Ok(NameMatch {
        kind: Some(kind),
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_32_bytes_in_one_of_two_notations() {
        let plain = "00".repeat(31) + "ff";
        let colons = plain
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).expect("digits"))
            .collect::<Vec<_>>()
            .join(":");

        assert_eq!(hexadecimal(&plain), hexadecimal(&colons));
        assert_eq!(hexadecimal(&plain).expect("32 bytes")[31], 0xff);
        assert_eq!(hexadecimal("00"), None);
        assert_eq!(hexadecimal(&"0g".repeat(32)), None);
        assert!(base64(&BASE64.encode([7; 32])).is_some());
        assert_eq!(base64("AAEC"), None);
    }
}
