//! TLS: the workload's own identity towards both sides.
//!
//! Certificates come by name: `identity` and `trust-bundle`, which the proxy answers itself. Others would need a
//! key that the control plane knows; they are refused.

use std::sync::Arc;

use weft_proto::envoy::config::core::v3::TransportSocket;
use weft_proto::envoy::config::core::v3::transport_socket::ConfigType;
use weft_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use weft_proto::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
};
use weft_proto::names::{SECRET_IDENTITY, SECRET_TRUST_BUNDLE};

use super::at::{At, Invalid, enumeration, harmless, holds, opened, required, unsupported};
use super::text::text_match;
use crate::config::cluster::{Transport, UpstreamTls};
use crate::config::listener::DownstreamTls;
use crate::config::matching::TextMatch;

/// TLS towards clients; none where the bytes are in the clear.
pub(super) fn downstream_transport(
    at: &At<'_>,
    wire: Option<&TransportSocket>,
) -> Result<Option<Arc<DownstreamTls>>, Invalid> {
    let Some(TransportSocket { name, config_type }) = wire else {
        return Ok(None);
    };
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(at.field("typed_config").refuse_value(name));
    };
    let at = at.field("typed_config");
    if holds::<RawBuffer>(any) {
        let RawBuffer {} = opened(&at, any)?;
        Ok(None)
    } else if holds::<DownstreamTlsContext>(any) {
        Ok(Some(Arc::new(downstream(&at, &opened(&at, any)?)?)))
    } else {
        Err(at.refuse_value(&any.type_url))
    }
}

/// What connections to endpoints are made of.
pub(super) fn upstream_transport(
    at: &At<'_>,
    wire: &TransportSocket,
) -> Result<Transport, Invalid> {
    let TransportSocket { name, config_type } = wire;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(at.field("typed_config").refuse_value(name));
    };
    let at = at.field("typed_config");
    if holds::<RawBuffer>(any) {
        let RawBuffer {} = opened(&at, any)?;
        Ok(Transport::Plaintext)
    } else if holds::<UpstreamTlsContext>(any) {
        Ok(Transport::Tls(Arc::new(upstream(&at, &opened(&at, any)?)?)))
    } else {
        Err(at.refuse_value(&any.type_url))
    }
}

fn downstream(at: &At<'_>, wire: &DownstreamTlsContext) -> Result<DownstreamTls, Invalid> {
    let DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        disable_stateful_session_resumption,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = wire;
    let must_send_name = require_sni.filter(|required| *required);
    if let Some(value) = must_send_name {
        return Err(at.field("require_sni").refuse_value(value));
    }
    harmless!(at; session_timeout, ocsp_staple_policy, full_scan_certs_on_sni_mismatch,
        disable_stateful_session_resumption, prefer_client_ciphers, session_ticket_keys_type);
    let at_common = at.field("common_tls_context");
    let common = common(
        &at_common,
        required(&at_common, common_tls_context.as_ref())?,
    )?;
    if !common.has_identity {
        return Err(at_common
            .field("tls_certificate_sds_secret_configs")
            .refuse(format_args!("must name the secret {SECRET_IDENTITY:?}")));
    }
    let requires = require_client_certificate.unwrap_or(false);
    if requires && !common.validates {
        return Err(at
            .field("require_client_certificate")
            .refuse("no validation context"));
    }
    Ok(DownstreamTls {
        require_client_certificate: requires,
        alpn: common.alpn,
        peer_identities: common.peer_identities,
    })
}

fn upstream(at: &At<'_>, wire: &UpstreamTlsContext) -> Result<UpstreamTls, Invalid> {
    let UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = wire;
    unsupported!(at; auto_host_sni, auto_sni_san_validation, allow_renegotiation);
    harmless!(at; max_session_keys, enforce_rsa_key_usage);
    let at_common = at.field("common_tls_context");
    let common = common(
        &at_common,
        required(&at_common, common_tls_context.as_ref())?,
    )?;
    if !common.has_identity {
        return Err(at_common
            .field("tls_certificate_sds_secret_configs")
            .refuse(format_args!("must name the secret {SECRET_IDENTITY:?}")));
    }
    // Envoy then believes any certificate; that is never meant.
    if !common.validates {
        return Err(at_common.field("validation_context_type").refuse("missing"));
    }
    Ok(UpstreamTls {
        peer_identities: common.peer_identities,
        sni: (!sni.is_empty()).then(|| sni.as_str().into()),
        alpn: common.alpn,
    })
}

/// What both sides have.
#[derive(Debug, Default)]
struct Common {
    has_identity: bool,
    validates: bool,
    peer_identities: Vec<TextMatch>,
    alpn: Vec<Arc<str>>,
}

fn common(at: &At<'_>, wire: &CommonTlsContext) -> Result<Common, Invalid> {
    let CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        custom_tls_certificate_selector,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = wire;
    unsupported!(at; tls_certificates, tls_certificate_provider_instance,
        tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance,
        custom_tls_certificate_selector, custom_handshaker, key_log);
    if let Some(wire) = tls_params {
        parameters(&at.field("tls_params"), wire)?;
    }
    let at_secrets = at.field("tls_certificate_sds_secret_configs");
    for (index, secret) in tls_certificate_sds_secret_configs.iter().enumerate() {
        expect_secret(&at_secrets.index(index), secret, SECRET_IDENTITY)?;
    }
    let mut found = Common {
        has_identity: !tls_certificate_sds_secret_configs.is_empty(),
        alpn: alpn_protocols
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        ..Common::default()
    };
    if let Some(wire) = validation_context_type {
        found.peer_identities = validation(at, wire)?;
        found.validates = true;
    }
    Ok(found)
}

/// Versions below 1.3 are never spoken, so only a lower maximum is a contradiction.
fn parameters(at: &At<'_>, wire: &TlsParameters) -> Result<(), Invalid> {
    let TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = wire;
    unsupported!(at; compliance_policies);
    harmless!(at; cipher_suites, ecdh_curves, signature_algorithms);
    let _ = tls_minimum_protocol_version;
    let at = at.field("tls_maximum_protocol_version");
    match enumeration(&at, *tls_maximum_protocol_version)? {
        TlsProtocol::TlsAuto | TlsProtocol::TlSv13 => Ok(()),
        other => Err(at.refuse_value(other)),
    }
}

fn expect_secret(at: &At<'_>, wire: &SdsSecretConfig, expected: &str) -> Result<(), Invalid> {
    // Where it comes from doesn't matter: it is known here.
    let SdsSecretConfig {
        name,
        sds_config: _,
    } = wire;
    if name == expected {
        return Ok(());
    }
    Err(at
        .field("name")
        .refuse(format_args!("{name:?} is not known; only {expected:?} is")))
}

/// Which of the peers that the trust bundle vouches for are accepted.
fn validation(at: &At<'_>, wire: &ValidationContextType) -> Result<Vec<TextMatch>, Invalid> {
    match wire {
        ValidationContextType::ValidationContextSdsSecretConfig(secret) => {
            let at = at.field("validation_context_sds_secret_config");
            expect_secret(&at, secret, SECRET_TRUST_BUNDLE)?;
            Ok(vec![])
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            let at = at.field("combined_validation_context");
            let CombinedCertificateValidationContext {
                default_validation_context,
                validation_context_sds_secret_config,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance,
            } = combined;
            unsupported!(at; validation_context_certificate_provider,
                validation_context_certificate_provider_instance);
            let at_secret = at.field("validation_context_sds_secret_config");
            let secret = required(&at_secret, validation_context_sds_secret_config.as_ref())?;
            expect_secret(&at_secret, secret, SECRET_TRUST_BUNDLE)?;
            let at = at.field("default_validation_context");
            default_validation_context
                .as_ref()
                .map_or(Ok(vec![]), |wire| context(&at, wire))
        }
        ValidationContextType::ValidationContext(_) => Err(at.field("validation_context").refuse(
            format_args!("must name the secret {SECRET_TRUST_BUNDLE:?} instead"),
        )),
        ValidationContextType::ValidationContextCertificateProvider(_) => Err(at
            .field("validation_context_certificate_provider")
            .refuse("not supported")),
        ValidationContextType::ValidationContextCertificateProviderInstance(_) => Err(at
            .field("validation_context_certificate_provider_instance")
            .refuse("not supported")),
    }
}

fn context(at: &At<'_>, wire: &CertificateValidationContext) -> Result<Vec<TextMatch>, Invalid> {
    let CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
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
    unsupported!(at; trusted_ca, ca_certificate_provider_instance, system_root_certs, watched_directory,
        verify_certificate_spki, verify_certificate_hash, require_signed_certificate_timestamp, crl,
        allow_expired_certificate, trust_chain_verification, custom_validator_config,
        only_verify_leaf_cert_crl);
    harmless!(at; max_verify_depth, suppress_client_ca_list);
    let typed = at.field("match_typed_subject_alt_names");
    let untyped = at.field("match_subject_alt_names");
    let typed = match_typed_subject_alt_names
        .iter()
        .enumerate()
        .map(|(index, wire)| uri(&typed.index(index), wire));
    let untyped = match_subject_alt_names
        .iter()
        .enumerate()
        .map(|(index, wire)| text_match(&untyped.index(index), wire));
    typed.chain(untyped).collect()
}

fn uri(at: &At<'_>, wire: &SubjectAltNameMatcher) -> Result<TextMatch, Invalid> {
    let SubjectAltNameMatcher {
        san_type,
        matcher,
        oid,
    } = wire;
    unsupported!(at; oid);
    match enumeration(&at.field("san_type"), *san_type)? {
        SanType::Uri => {}
        other => return Err(at.field("san_type").refuse_value(other)),
    }
    let at = at.field("matcher");
    text_match(&at, required(&at, matcher.as_ref())?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    const TYPES: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

    fn common_json() -> Value {
        json!({
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [{"name": "identity", "sds_config": {"ads": {}}}],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/a/sa/b"}},
                ]},
                "validation_context_sds_secret_config": {"name": "trust-bundle", "sds_config": {"ads": {}}},
            },
        })
    }

    fn socket(message: &str, mut fields: Value, common: Value) -> TransportSocket {
        fields["@type"] = format!("{TYPES}.{message}").into();
        fields["common_tls_context"] = common;
        from_json(json!({"name": "tls", "typed_config": fields})).expect("a transport socket")
    }

    fn up(common: Value) -> Result<Transport, Invalid> {
        let notes = Notes::default();
        upstream_transport(
            &At::root(&notes),
            &socket("UpstreamTlsContext", json!({}), common),
        )
    }

    #[test]
    fn the_identities_behind_a_service_are_pinned() {
        let Transport::Tls(tls) = up(common_json()).expect("valid") else {
            panic!("no TLS")
        };

        assert_eq!(
            tls.peer_identities,
            [TextMatch::exact("spiffe://cluster.local/ns/a/sa/b")]
        );
        assert_eq!(tls.alpn, ["h2".into(), "http/1.1".into()]);
    }

    #[test]
    fn a_client_certificate_can_be_required() {
        let notes = Notes::default();
        let wire = socket(
            "DownstreamTlsContext",
            json!({"require_client_certificate": true}),
            common_json(),
        );

        let tls = downstream_transport(&At::root(&notes), Some(&wire)).expect("valid");

        assert!(tls.expect("TLS").require_client_certificate);
    }

    #[test]
    fn nobody_is_believed_without_validation() {
        let mut common = common_json();
        common
            .as_object_mut()
            .expect("an object")
            .remove("combined_validation_context");

        assert_eq!(
            up(common).expect_err("refused").to_string(),
            "typed_config.common_tls_context.validation_context_type: missing"
        );
    }

    #[test]
    fn another_secret_is_refused_by_name() {
        let mut common = common_json();
        common["tls_certificate_sds_secret_configs"][0]["name"] = "mine".into();

        assert_eq!(
            up(common).expect_err("refused").to_string(),
            "typed_config.common_tls_context.tls_certificate_sds_secret_configs[0].name: \
             \"mine\" is not known; only \"identity\" is"
        );
    }

    #[test]
    fn an_older_version_at_most_is_a_contradiction() {
        let mut common = common_json();
        common["tls_params"] = json!({"tls_maximum_protocol_version": "TLSv1_2"});

        assert!(up(common).is_err());
    }
}
