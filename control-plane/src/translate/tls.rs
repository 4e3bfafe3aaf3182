//! Mutual TLS between sidecars: SPIFFE identities over SDS, TLS 1.3, the server's identity pinned by its client.

use weft_proto::envoy::config::core::v3::TransportSocket;
use weft_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use weft_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use weft_proto::names;

use super::wire;

const TLS: &str = "envoy.transport_sockets.tls";
const RAW_BUFFER: &str = "envoy.transport_sockets.raw_buffer";

/// TLS towards endpoints that may only be one of these identities. No ALPN here: it follows the protocol that
/// the caller spoke, and opaque bytes carry none.
pub(super) fn upstream<'a>(identities: impl Iterator<Item = &'a str>) -> TransportSocket {
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(common(identities.map(by_identity).collect(), &[])),
        ..tls::UpstreamTlsContext::default()
    };
    wire::transport_socket(TLS, &context)
}

/// TLS towards callers, who must show any identity of the mesh.
pub(super) fn downstream(alpn: &[&str]) -> TransportSocket {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(common(Vec::new(), alpn)),
        require_client_certificate: Some(true),
        ..tls::DownstreamTlsContext::default()
    };
    wire::transport_socket(TLS, &context)
}

/// Plaintext.
pub(super) fn plaintext() -> TransportSocket {
    wire::transport_socket(RAW_BUFFER, &RawBuffer {})
}

fn common(peers: Vec<tls::SubjectAltNameMatcher>, alpn: &[&str]) -> tls::CommonTlsContext {
    let trust = tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: peers,
            ..tls::CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(names::SECRET_TRUST_BUNDLE)),
        ..tls::common_tls_context::CombinedCertificateValidationContext::default()
    };
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13.into(),
            ..tls::TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(names::SECRET_IDENTITY)],
        validation_context_type: Some(
            tls::common_tls_context::ValidationContextType::CombinedValidationContext(trust),
        ),
        alpn_protocols: alpn.iter().map(|&protocol| protocol.to_owned()).collect(),
        ..tls::CommonTlsContext::default()
    }
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(wire::ads()),
    }
}

fn by_identity(identity: &str) -> tls::SubjectAltNameMatcher {
    tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(wire::exactly(identity)),
        ..tls::SubjectAltNameMatcher::default()
    }
}
