//! TLS: what is shown to peers and who is believed, as the workload or with certificates of the configuration's own.
//!
//! The secrets `identity` and `trust-bundle` are the workload's, which the proxy answers itself.

mod certificates;
mod validation;

use std::sync::Arc;

use weft_proto::envoy::config::core::v3::TransportSocket;
use weft_proto::envoy::config::core::v3::transport_socket::ConfigType;
use weft_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use weft_proto::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret as WireSecret, TlsCertificate,
    TlsParameters, UpstreamTlsContext,
};
use weft_proto::names::{SECRET_IDENTITY, SECRET_TRUST_BUNDLE};

use self::certificates::certificate;
use super::at::{
    At, Invalid, Named, enumeration, harmless, holds, nonempty, opened, required, unsupported,
};
use super::config_source::needs;
use super::control_plane::Source;
use crate::config::cluster::Transport;
use crate::config::tls::{Anchor, Believed, DownstreamTls, Secret, Shown, UpstreamTls, Versions};
use crate::xds::kind::Kind;

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

/// A secret by itself, and its name.
pub(super) fn secret(at: &At<'_>, wire: &WireSecret) -> Result<(Arc<str>, Secret), Invalid> {
    let WireSecret { name, r#type } = wire;
    let name = nonempty(&at.field("name"), name)?;
    let secret = match required(&at.field("type"), r#type.as_ref())? {
        Type::TlsCertificate(wire) => {
            Secret::Certificate(Arc::new(certificate(&at.field("tls_certificate"), wire)?))
        }
        Type::ValidationContext(wire) => {
            Secret::Believed(validation::context(&at.field("validation_context"), wire)?)
        }
        Type::SessionTicketKeys(_) => {
            return Err(at.field("session_ticket_keys").refuse("not supported"));
        }
        Type::GenericSecret(_) => return Err(at.field("generic_secret").refuse("not supported")),
    };
    Ok((name.into(), secret))
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
    harmless!(at; session_timeout, ocsp_staple_policy, full_scan_certs_on_sni_mismatch,
        disable_stateful_session_resumption, prefer_client_ciphers, session_ticket_keys_type);
    let at_common = at.field("common_tls_context");
    let common = common(
        &at_common,
        required(&at_common, common_tls_context.as_ref())?,
    )?;
    if common.shows == Shown::Nothing {
        return Err(at_common.field("tls_certificates").refuse("missing"));
    }
    let requires = require_client_certificate.unwrap_or(false);
    if requires && common.believes.is_none() {
        return Err(at
            .field("require_client_certificate")
            .refuse("no validation context"));
    }
    Ok(DownstreamTls {
        shows: common.shows,
        believes: common.believes,
        require_client_certificate: requires,
        require_server_name: require_sni.unwrap_or(false),
        alpn: common.alpn,
        versions: common.versions,
        // Its filter chain says it.
        handshake_timeout: None,
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
    // All of it has a default.
    let absent = CommonTlsContext::default();
    let common = common(&at_common, common_tls_context.as_ref().unwrap_or(&absent))?;
    // As the workload, everybody would be believed; that is never meant.
    if common.believes.is_none() && common.shows == Shown::Workload {
        return Err(at_common.field("validation_context_type").refuse("missing"));
    }
    Ok(UpstreamTls {
        shows: common.shows,
        believes: common
            .believes
            .unwrap_or_else(|| Believed::by(Anchor::Nobody)),
        sni: (!sni.is_empty()).then(|| sni.as_str().into()),
        alpn: common.alpn,
        versions: common.versions,
    })
}

/// What both sides have.
struct Common {
    shows: Shown,
    believes: Option<Believed>,
    alpn: Vec<Arc<str>>,
    versions: Versions,
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
    unsupported!(at; tls_certificate_provider_instance,
        tls_certificate_certificate_provider, tls_certificate_certificate_provider_instance,
        custom_tls_certificate_selector, custom_handshaker, key_log);
    let shows = shows(at, tls_certificates, tls_certificate_sds_secret_configs)?;
    let at_params = at.field("tls_params");
    let versions = versions(&at_params, tls_params.as_ref(), shows == Shown::Workload)?;
    let validation = validation_context_type.as_ref();
    Ok(Common {
        shows,
        believes: validation
            .map(|wire| validation::believed(at, wire))
            .transpose()?,
        alpn: alpn_protocols
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        versions,
    })
}

fn shows(
    at: &At<'_>,
    certificates: &[TlsCertificate],
    secrets: &[SdsSecretConfig],
) -> Result<Shown, Invalid> {
    let at_secrets = at.field("tls_certificate_sds_secret_configs");
    match (certificates, secrets) {
        ([], []) => Ok(Shown::Nothing),
        ([], [secret]) => Ok(match secret_name(&at_secrets.index(0), secret)? {
            SECRET_IDENTITY => Shown::Workload,
            name => Shown::Secret(name.into()),
        }),
        (certificates, []) => {
            let at = at.field("tls_certificates");
            let each = certificates.iter().enumerate();
            let read = each.map(|(index, wire)| certificate(&at.index(index), wire).map(Arc::new));
            read.collect::<Result<_, _>>().map(Shown::Certificates)
        }
        ([], _) => Err(at_secrets.refuse("more than one is not supported")),
        (_, _) => Err(at_secrets.refuse("contradicts tls_certificates")),
    }
}

/// The name of a secret. The workload's own come from nowhere else.
fn secret_name<'a>(at: &At<'_>, wire: &'a SdsSecretConfig) -> Result<&'a str, Invalid> {
    let SdsSecretConfig { name, sds_config } = wire;
    let name = nonempty(&at.field("name"), name)?;
    if matches!(name, SECRET_IDENTITY | SECRET_TRUST_BUNDLE) {
        return Ok(name);
    }
    let at = at.field("sds_config");
    match sds_config {
        Some(_) => needs(&at, Kind::Secret, name, sds_config.as_ref())?,
        None => at.needs(Named {
            kind: Kind::Secret,
            name: name.into(),
            field: at.to_string(),
            source: Source::Bootstrap,
            limit: None,
        }),
    }
    Ok(name)
}

/// Versions below 1.2 are never spoken, and as the workload none but 1.3.
fn versions(
    at: &At<'_>,
    wire: Option<&TlsParameters>,
    is_workload: bool,
) -> Result<Versions, Invalid> {
    let default = TlsParameters::default();
    let TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = wire.unwrap_or(&default);
    unsupported!(at; compliance_policies);
    harmless!(at; cipher_suites, ecdh_curves, signature_algorithms);
    let at_minimum = at.field("tls_minimum_protocol_version");
    let minimum: TlsProtocol = enumeration(&at_minimum, *tls_minimum_protocol_version)?;
    let at_maximum = at.field("tls_maximum_protocol_version");
    let maximum: TlsProtocol = enumeration(&at_maximum, *tls_maximum_protocol_version)?;
    let versions = Versions {
        has_1_2: minimum != TlsProtocol::TlSv13 && !is_workload,
        has_1_3: maximum != TlsProtocol::TlSv12,
    };
    let is_too_old = matches!(maximum, TlsProtocol::TlSv10 | TlsProtocol::TlSv11);
    if is_too_old || !(versions.has_1_2 || versions.has_1_3) {
        return Err(at_maximum.refuse_value(maximum));
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;
    use crate::config::matching::TextMatch;

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
            tls.believes,
            Believed::of_mesh([TextMatch::exact("spiffe://cluster.local/ns/a/sa/b")])
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
    fn another_secret_is_awaited() {
        let mut common = common_json();
        common["tls_certificate_sds_secret_configs"][0]["name"] = "mine".into();
        common["combined_validation_context"]["validation_context_sds_secret_config"]["name"] =
            "theirs".into();

        let Transport::Tls(tls) = up(common).expect("valid") else {
            panic!("no TLS")
        };

        assert_eq!(tls.shows, Shown::Secret("mine".into()));
        assert_eq!(tls.believes.anchor, Anchor::Secret("theirs".into()));
        assert!(!tls.needs_identity());
    }

    #[test]
    fn a_certificate_must_have_its_key() {
        let certify = || {
            let key = rcgen::KeyPair::generate().expect("a key");
            let params = rcgen::CertificateParams::new(vec!["a.example".into()]).expect("valid");
            let certificate = params.self_signed(&key).expect("signed");
            (certificate.pem(), key.serialize_pem())
        };
        let ((chain, key), (_, other_key)) = (certify(), certify());
        let with = |key: &str| {
            let common = json!({"tls_certificates": [{
                "certificate_chain": {"inline_string": chain},
                "private_key": {"inline_string": key},
            }]});
            let notes = Notes::default();
            let wire = socket("DownstreamTlsContext", json!({}), common);
            downstream_transport(&At::root(&notes), Some(&wire))
        };

        let tls = with(&key).expect("valid").expect("TLS");
        let Shown::Certificates(certificates) = &tls.shows else {
            panic!("{:?}", tls.shows)
        };
        assert_eq!(certificates[0].hosts, ["a.example"]);
        assert_eq!(tls.believes, None);
        let refused = with(&other_key).expect_err("another key").to_string();
        assert!(
            refused.starts_with("typed_config.common_tls_context.tls_certificates[0]: "),
            "{refused}"
        );
        let refused = with("nothing").expect_err("no key").to_string();
        assert!(
            refused.contains("private_key: no private key in PEM"),
            "{refused}"
        );
    }

    #[test]
    fn an_older_version_at_most_is_a_contradiction() {
        let mut common = common_json();
        common["tls_params"] = json!({"tls_maximum_protocol_version": "TLSv1_2"});

        assert!(up(common).is_err());
    }
}
