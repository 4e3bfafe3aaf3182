//! Headers that become metadata.

use weft_proto::envoy::extensions::filters::http::header_to_metadata::v3::Config;
use weft_proto::envoy::extensions::filters::http::header_to_metadata::v3::config::{
    KeyValuePair, Rule, ValueEncode, ValueType,
};

use super::super::at::{At, Invalid, enumeration, harmless, nonempty};
use super::super::text::{subject, substitution};
use crate::config::filter::header_to_metadata::{
    HeaderRule, HeaderSource, HeaderToMetadataConfig, MetadataEntry, ValueKind,
};

/// Where values go that are not told where.
const NAMESPACE: &str = "envoy.filters.http.header_to_metadata";

/// The filter, for a chain or a part of the routes.
pub(super) fn header_to_metadata(
    at: &At<'_>,
    wire: &Config,
) -> Result<HeaderToMetadataConfig, Invalid> {
    let Config {
        request_rules,
        response_rules,
        stat_prefix,
    } = wire;
    harmless!(at; stat_prefix);
    Ok(HeaderToMetadataConfig {
        request: rules(&at.field("request_rules"), request_rules)?,
        response: rules(&at.field("response_rules"), response_rules)?.into(),
    })
}

fn rules(at: &At<'_>, wire: &[Rule]) -> Result<Vec<HeaderRule>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| rule(&at.index(index), wire))
        .collect()
}

fn rule(at: &At<'_>, wire: &Rule) -> Result<HeaderRule, Invalid> {
    let Rule {
        header,
        cookie,
        on_header_present,
        on_header_missing,
        remove,
    } = wire;
    let source = match (header.as_str(), cookie.as_str()) {
        (header, "") => HeaderSource::Header(subject(
            &at.field("header"),
            nonempty(&at.field("header"), header)?,
        )?),
        ("", cookie) => HeaderSource::Cookie(cookie.into()),
        _ => return Err(at.field("cookie").refuse("`header` is set, too")),
    };
    if on_header_present.is_none() && on_header_missing.is_none() {
        return Err(at.refuse("neither `on_header_present` nor `on_header_missing` is set"));
    }
    if *remove && !cookie.is_empty() {
        return Err(at.field("remove").refuse("a cookie cannot be removed"));
    }
    if on_header_missing
        .as_ref()
        .is_some_and(|pair| pair.value.is_empty())
    {
        let at = at.field("on_header_missing");
        return Err(at.field("value").refuse("must not be empty"));
    }
    let entry_at = |name: &str, wire: Option<&KeyValuePair>| {
        wire.map(|wire| entry(&at.field(name), wire)).transpose()
    };
    Ok(HeaderRule {
        source,
        present: entry_at("on_header_present", on_header_present.as_ref())?,
        missing: entry_at("on_header_missing", on_header_missing.as_ref())?,
        is_removed: *remove,
    })
}

fn entry(at: &At<'_>, wire: &KeyValuePair) -> Result<MetadataEntry, Invalid> {
    let KeyValuePair {
        metadata_namespace,
        key,
        value,
        regex_value_rewrite,
        r#type,
        encode,
    } = wire;
    let rewrite = regex_value_rewrite
        .as_ref()
        .map(|wire| substitution(&at.field("regex_value_rewrite"), wire))
        .transpose()?;
    if rewrite.is_some() && !value.is_empty() {
        return Err(at
            .field("value")
            .refuse("`regex_value_rewrite` is set, too"));
    }
    Ok(MetadataEntry {
        namespace: match metadata_namespace.as_str() {
            "" => NAMESPACE.into(),
            namespace => namespace.into(),
        },
        key: nonempty(&at.field("key"), key)?.into(),
        value: value.as_str().into(),
        rewrite,
        kind: match enumeration(&at.field("type"), *r#type)? {
            ValueType::String => ValueKind::Text,
            ValueType::Number => ValueKind::Number,
            ValueType::ProtobufValue => ValueKind::Protobuf,
        },
        is_base64: match enumeration(&at.field("encode"), *encode)? {
            ValueEncode::None => false,
            ValueEncode::Base64 => true,
        },
    })
}
