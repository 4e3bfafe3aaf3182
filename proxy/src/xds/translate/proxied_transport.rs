//! What connections to the endpoints of a cluster are made of, a PROXY header before them included.

use weft_proto::envoy::config::core::v3::proxy_protocol_config::Version as WireVersion;
use weft_proto::envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use weft_proto::envoy::config::core::v3::transport_socket::ConfigType;
use weft_proto::envoy::config::core::v3::{
    ProxyProtocolConfig, ProxyProtocolPassThroughTlVs, TransportSocket,
};
use weft_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;

use super::at::{At, Invalid, enumeration, harmless, holds, opened, required, unsupported};
use super::tls::upstream_transport;
use crate::config::cluster::Transport;
use crate::proxy_protocol::Version;

/// A transport, and the version of the header before it.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) transport: Transport,
    pub(super) version: Option<Version>,
}

/// That of a cluster.
pub(super) fn announced(at: &At<'_>, wire: Option<&TransportSocket>) -> Result<Announced, Invalid> {
    let Some(wire) = wire else {
        return Ok(Announced {
            transport: Transport::Plaintext,
            version: None,
        });
    };
    if let Some(ConfigType::TypedConfig(any)) = &wire.config_type
        && holds::<ProxyProtocolUpstreamTransport>(any)
    {
        let at = at.field("typed_config");
        return with_header(&at, &opened(&at, any)?);
    }
    Ok(Announced {
        transport: upstream_transport(at, wire)?,
        version: None,
    })
}

fn with_header(at: &At<'_>, wire: &ProxyProtocolUpstreamTransport) -> Result<Announced, Invalid> {
    let ProxyProtocolUpstreamTransport {
        config,
        transport_socket,
        allow_unspecified_address,
        tlv_as_pool_key,
    } = wire;
    unsupported!(at; allow_unspecified_address);
    // There are none to tell connections apart by.
    harmless!(at; tlv_as_pool_key);
    // All of it has a default.
    let absent = ProxyProtocolConfig::default();
    let version = version(&at.field("config"), config.as_ref().unwrap_or(&absent))?;
    let at_inner = at.field("transport_socket");
    let inner = required(&at_inner, transport_socket.as_ref())?;
    Ok(Announced {
        transport: upstream_transport(&at_inner, inner)?,
        version: Some(version),
    })
}

/// The version of a header.
pub(super) fn version(at: &At<'_>, wire: &ProxyProtocolConfig) -> Result<Version, Invalid> {
    let ProxyProtocolConfig {
        version,
        pass_through_tlvs,
        added_tlvs,
    } = wire;
    let at_added = at.field("added_tlvs");
    if let Some(first) = added_tlvs.first() {
        return Err(at_added.index(0).refuse_value(first));
    }
    if let Some(wire) = pass_through_tlvs {
        passes_none(&at.field("pass_through_tlvs"), wire)?;
    }
    Ok(match enumeration(&at.field("version"), *version)? {
        WireVersion::V1 => Version::V1,
        WireVersion::V2 => Version::V2,
    })
}

/// What clients' headers say beside addresses is not kept, so that none of it can be passed on.
fn passes_none(at: &At<'_>, wire: &ProxyProtocolPassThroughTlVs) -> Result<(), Invalid> {
    let ProxyProtocolPassThroughTlVs {
        match_type,
        tlv_type,
    } = wire;
    let at_type = at.field("match_type");
    match enumeration(&at_type, *match_type)? {
        PassTlVsMatchType::Include if tlv_type.is_empty() => Ok(()),
        PassTlVsMatchType::Include => Err(at.field("tlv_type").refuse_value(tlv_type)),
        all @ PassTlVsMatchType::IncludeAll => Err(at_type.refuse_value(all)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    const TYPES: &str = "type.googleapis.com/envoy.extensions.transport_sockets";

    fn read(fields: Value) -> Result<Announced, Invalid> {
        let mut typed = json!({
            "@type": format!("{TYPES}.proxy_protocol.v3.ProxyProtocolUpstreamTransport"),
            "transport_socket": {"name": "raw", "typed_config": {
                "@type": format!("{TYPES}.raw_buffer.v3.RawBuffer"),
            }},
        });
        for (name, value) in fields.as_object().expect("fields") {
            typed[name] = value.clone();
        }
        let wire = json!({"name": "proxy", "typed_config": typed});
        let wire = from_json(wire).expect("a transport socket");
        let notes = Notes::default();
        announced(&At::root(&notes), Some(&wire))
    }

    fn version_of(fields: Value) -> Option<Version> {
        read(fields).expect("valid").version
    }

    #[test]
    fn version_one_is_sent_unless_another_is_asked_for() {
        assert_eq!(version_of(json!({})), Some(Version::V1));
        let second = json!({"config": {"version": "V2"}});
        assert_eq!(version_of(second), Some(Version::V2));
    }

    #[test]
    fn what_goes_beyond_addresses_is_refused_by_its_path() {
        for (fields, path) in [
            (
                json!({"config": {"pass_through_tlvs": {}}}),
                "typed_config.config.pass_through_tlvs.match_type",
            ),
            (
                json!({"config": {"pass_through_tlvs": {"match_type": "INCLUDE", "tlv_type": [5]}}}),
                "typed_config.config.pass_through_tlvs.tlv_type",
            ),
            (
                json!({"config": {"added_tlvs": [{"type": 240, "value": "YQ=="}]}}),
                "typed_config.config.added_tlvs[0]",
            ),
            (
                json!({"allow_unspecified_address": true}),
                "typed_config.allow_unspecified_address",
            ),
        ] {
            assert_eq!(read(fields).expect_err(path).path(), path);
        }
        let none = json!({"config": {"pass_through_tlvs": {"match_type": "INCLUDE"}}});
        assert_eq!(version_of(none), Some(Version::V1));
    }

    #[test]
    fn a_header_goes_before_one_transport_and_not_before_another_header() {
        let missing = read(json!({"transport_socket": null})).expect_err("nothing after it");
        assert_eq!(missing.path(), "typed_config.transport_socket");
        let nested = json!({"transport_socket": {"name": "proxy", "typed_config": {
            "@type": format!("{TYPES}.proxy_protocol.v3.ProxyProtocolUpstreamTransport"),
        }}});
        let nested = read(nested).expect_err("twice");
        assert_eq!(nested.path(), "typed_config.transport_socket.typed_config");
    }
}
