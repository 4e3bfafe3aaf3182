//! What rate limits count by.

use std::sync::Arc;

use weft_proto::envoy::config::route::v3::RateLimit;
use weft_proto::envoy::config::route::v3::rate_limit::action::ActionSpecifier;
use weft_proto::envoy::config::route::v3::rate_limit::action::{
    DynamicMetaData, GenericKey, HeaderValueMatch, MaskedRemoteAddress, MetaData,
    QueryParameterValueMatch, QueryParameters, RemoteAddressMatch, RequestHeaders, meta_data,
};
use weft_proto::envoy::config::route::v3::rate_limit::r#override::OverrideSpecifier;
use weft_proto::envoy::config::route::v3::rate_limit::{Action, HitsAddend};
use weft_proto::envoy::extensions::common::ratelimit::v3::VhRateLimitsOptions;

use super::super::at::{At, Invalid, enumeration, harmless, nonempty, required, unsupported};
use super::super::headers::template;
use super::super::text::{header_matches, header_name, query_matches};
use super::value::metadata_path;
use crate::config::filter::rate_limits::{
    Absent, EntrySource, Hits, HitsAmount, HostRules, LimitOverride, LimitRule, ValueSource,
};

/// Descriptors that routes and hosts ask for. As in Envoy, `hits_addend` says nothing there.
pub(in crate::xds::translate) fn rules_of_routes(
    at: &At<'_>,
    wire: &[RateLimit],
) -> Result<Arc<[LimitRule]>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| {
            let at = at.index(index);
            let hits_addend = &wire.hits_addend;
            harmless!(at; hits_addend);
            let hits = None;
            Ok(LimitRule {
                hits,
                ..rule(&at, wire)?
            })
        })
        .collect()
}

/// Descriptors that a filter asks for.
pub(in crate::xds::translate) fn rules(
    at: &At<'_>,
    wire: &[RateLimit],
) -> Result<Arc<[LimitRule]>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| rule(&at.index(index), wire))
        .collect()
}

pub(super) fn host_rules(at: &At<'_>, wire: i32) -> Result<HostRules, Invalid> {
    Ok(match enumeration(at, wire)? {
        VhRateLimitsOptions::Override => HostRules::Override,
        VhRateLimitsOptions::Include => HostRules::Include,
        VhRateLimitsOptions::Ignore => HostRules::Ignore,
    })
}

fn rule(at: &At<'_>, wire: &RateLimit) -> Result<LimitRule, Invalid> {
    let RateLimit {
        stage,
        disable_key,
        actions,
        limit,
        hits_addend,
        apply_on_stream_done,
        x_ratelimit_option,
    } = wire;
    unsupported!(at; apply_on_stream_done, x_ratelimit_option);
    harmless!(at; disable_key);
    if actions.is_empty() {
        return Err(at.field("actions").refuse("must not be empty"));
    }
    let limit = match limit
        .as_ref()
        .and_then(|limit| limit.override_specifier.as_ref())
    {
        None => None,
        Some(OverrideSpecifier::RateLimit(limit)) => {
            Some(LimitOverride::Fixed(limit.requests_per_unit, limit.unit))
        }
        Some(OverrideSpecifier::DynamicMetadata(wire)) => {
            let at = at.field("limit");
            let at = at.field("dynamic_metadata");
            let at = at.field("metadata_key");
            let path = metadata_path(&at, required(&at, wire.metadata_key.as_ref())?)?;
            Some(LimitOverride::Metadata(path))
        }
    };
    let at_actions = at.field("actions");
    let entries = actions
        .iter()
        .enumerate()
        .map(|(index, wire)| entry(&at_actions.index(index), wire))
        .collect::<Result<_, _>>()?;
    Ok(LimitRule {
        stage: stage.unwrap_or(0),
        entries,
        hits: hits(&at.field("hits_addend"), hits_addend.as_ref())?,
        limit,
    })
}

fn hits(at: &At<'_>, wire: Option<&HitsAddend>) -> Result<Option<Hits>, Invalid> {
    let Some(wire) = wire else { return Ok(None) };
    let HitsAddend {
        number,
        format,
        is_negative_hits,
    } = wire;
    let amount = match (number, format.as_str()) {
        (None, "") => return Ok(None),
        (Some(number), "") => HitsAmount::Number(*number),
        (None, format) => HitsAmount::Formatted(template(&at.field("format"), format)?),
        (Some(_), _) => return Err(at.field("format").refuse("`number` is set, too")),
    };
    Ok(Some(Hits {
        amount,
        is_negative: *is_negative_hits,
    }))
}

fn entry(at: &At<'_>, wire: &Action) -> Result<EntrySource, Invalid> {
    let Action { action_specifier } = wire;
    let simple = |key: &str, value| EntrySource {
        key: key.into(),
        value,
        absent: Absent::NoDescriptor,
    };
    Ok(
        match required(&at.field("action_specifier"), action_specifier.as_ref())? {
            ActionSpecifier::DestinationCluster(_) => {
                simple("destination_cluster", ValueSource::DestinationCluster)
            }
            ActionSpecifier::RemoteAddress(_) => simple("remote_address", ValueSource::ClientIp),
            ActionSpecifier::MaskedRemoteAddress(wire) => simple(
                "masked_remote_address",
                masked(&at.field("masked_remote_address"), wire)?,
            ),
            ActionSpecifier::RequestHeaders(wire) => {
                request_header(&at.field("request_headers"), wire)?
            }
            ActionSpecifier::QueryParameters(wire) => {
                query_parameter(&at.field("query_parameters"), wire)?
            }
            ActionSpecifier::GenericKey(wire) => generic(&at.field("generic_key"), wire)?,
            ActionSpecifier::HeaderValueMatch(wire) => {
                header_value(&at.field("header_value_match"), wire)?
            }
            ActionSpecifier::QueryParameterValueMatch(wire) => {
                query_value(&at.field("query_parameter_value_match"), wire)?
            }
            ActionSpecifier::RemoteAddressMatch(wire) => {
                client_in(&at.field("remote_address_match"), wire)?
            }
            ActionSpecifier::Metadata(wire) => metadata(&at.field("metadata"), wire)?,
            ActionSpecifier::DynamicMetadata(wire) => dynamic(&at.field("dynamic_metadata"), wire)?,
            ActionSpecifier::SourceCluster(_) => {
                simple("source_cluster", ValueSource::SourceCluster)
            }
            ActionSpecifier::Extension(extension) => {
                return Err(at.field("extension").refuse_value(&extension.name));
            }
        },
    )
}

fn masked(at: &At<'_>, wire: &MaskedRemoteAddress) -> Result<ValueSource, Invalid> {
    let MaskedRemoteAddress {
        v4_prefix_mask_len,
        v6_prefix_mask_len,
    } = wire;
    let length = |field: &'static str, wire: Option<u32>, max: u8| {
        let length = wire.map_or(Some(max), |length| u8::try_from(length).ok());
        let length = length.filter(|length| *length <= max);
        length.ok_or_else(|| at.field(field).refuse(format_args!("exceeds {max}")))
    };
    Ok(ValueSource::ClientNetwork(
        length("v4_prefix_mask_len", *v4_prefix_mask_len, 32)?,
        length("v6_prefix_mask_len", *v6_prefix_mask_len, 128)?,
    ))
}

fn request_header(at: &At<'_>, wire: &RequestHeaders) -> Result<EntrySource, Invalid> {
    let RequestHeaders {
        header_name: name,
        descriptor_key,
        skip_if_absent,
    } = wire;
    let value = match name.to_ascii_lowercase().as_str() {
        ":method" => ValueSource::Method,
        ":scheme" => ValueSource::Scheme,
        ":path" => ValueSource::Path,
        ":authority" | "host" => ValueSource::Authority,
        name => ValueSource::Header(header_name(&at.field("header_name"), name)?),
    };
    Ok(EntrySource {
        key: nonempty(&at.field("descriptor_key"), descriptor_key)?.into(),
        value,
        absent: skipping(*skip_if_absent),
    })
}

fn query_parameter(at: &At<'_>, wire: &QueryParameters) -> Result<EntrySource, Invalid> {
    let QueryParameters {
        query_parameter_name: name,
        descriptor_key,
        skip_if_absent,
    } = wire;
    Ok(EntrySource {
        key: nonempty(&at.field("descriptor_key"), descriptor_key)?.into(),
        value: ValueSource::Query(nonempty(&at.field("query_parameter_name"), name)?.into()),
        absent: skipping(*skip_if_absent),
    })
}

fn skipping(skip_if_absent: bool) -> Absent {
    match skip_if_absent {
        true => Absent::NoEntry,
        false => Absent::NoDescriptor,
    }
}

/// The one formatter that is known here names the peer, by whom limits can thus count.
const PEER_IDENTITY: &str = "%DOWNSTREAM_PEER_URI_SAN%";

fn generic(at: &At<'_>, wire: &GenericKey) -> Result<EntrySource, Invalid> {
    let GenericKey {
        descriptor_value,
        descriptor_key,
        default_value,
    } = wire;
    let value = match nonempty(&at.field("descriptor_value"), descriptor_value)? {
        PEER_IDENTITY => ValueSource::PeerIdentity,
        literal => ValueSource::Literal(literal.into()),
    };
    Ok(EntrySource {
        key: or(descriptor_key, "generic_key"),
        value,
        absent: defaulting(default_value),
    })
}

fn header_value(at: &At<'_>, wire: &HeaderValueMatch) -> Result<EntrySource, Invalid> {
    let HeaderValueMatch {
        descriptor_value,
        expect_match,
        headers,
        descriptor_key,
        default_value,
    } = wire;
    // It is for values that come to nothing, and these are literal.
    harmless!(at; default_value);
    Ok(EntrySource {
        key: or(descriptor_key, "header_match"),
        value: ValueSource::HeadersMatch {
            value: nonempty(&at.field("descriptor_value"), descriptor_value)?.into(),
            expected: expect_match.unwrap_or(true),
            headers: header_matches(&at.field("headers"), headers)?,
        },
        absent: Absent::NoDescriptor,
    })
}

fn query_value(at: &At<'_>, wire: &QueryParameterValueMatch) -> Result<EntrySource, Invalid> {
    let QueryParameterValueMatch {
        descriptor_value,
        expect_match,
        query_parameters,
        descriptor_key,
        default_value,
    } = wire;
    harmless!(at; default_value);
    Ok(EntrySource {
        key: or(descriptor_key, "query_match"),
        value: ValueSource::QueryMatches {
            value: nonempty(&at.field("descriptor_value"), descriptor_value)?.into(),
            expected: expect_match.unwrap_or(true),
            query: query_matches(&at.field("query_parameters"), query_parameters)?,
        },
        absent: Absent::NoDescriptor,
    })
}

fn client_in(at: &At<'_>, wire: &RemoteAddressMatch) -> Result<EntrySource, Invalid> {
    let RemoteAddressMatch {
        descriptor_value,
        descriptor_key,
        default_value,
        address_matcher,
    } = wire;
    let at_matcher = at.field("address_matcher");
    let matcher = required(&at_matcher, address_matcher.as_ref())?;
    let at_ranges = at_matcher.field("ranges");
    let networks = matcher.ranges.iter().enumerate().map(|(index, range)| {
        let at = at_ranges.index(index);
        let length = range.prefix_len.unwrap_or(0);
        let text = format!("{}/{length}", range.address_prefix);
        text.parse()
            .map_err(|_| at.refuse(format_args!("{text:?} is no network")))
    });
    let at_value = at.field("descriptor_value");
    Ok(EntrySource {
        key: or(descriptor_key, "remote_address_match"),
        value: ValueSource::ClientIn {
            value: template(&at_value, nonempty(&at_value, descriptor_value)?)?,
            networks: networks.collect::<Result<_, Invalid>>()?,
            invert: matcher.invert_match,
        },
        absent: defaulting(default_value),
    })
}

fn metadata(at: &At<'_>, wire: &MetaData) -> Result<EntrySource, Invalid> {
    let MetaData {
        descriptor_key,
        metadata_key,
        default_value,
        source,
        skip_if_absent,
    } = wire;
    let at_key = at.field("metadata_key");
    let path = metadata_path(&at_key, required(&at_key, metadata_key.as_ref())?)?;
    let at_source = at.field("source");
    let value = match enumeration(&at_source, *source)? {
        meta_data::Source::Dynamic => ValueSource::Metadata(path),
        meta_data::Source::RouteEntry => ValueSource::RouteMetadata(path),
        other => return Err(at_source.refuse_value(other)),
    };
    let absent = match defaulting(default_value) {
        Absent::NoDescriptor => skipping(*skip_if_absent),
        default => default,
    };
    Ok(EntrySource {
        key: nonempty(&at.field("descriptor_key"), descriptor_key)?.into(),
        value,
        absent,
    })
}

fn dynamic(at: &At<'_>, wire: &DynamicMetaData) -> Result<EntrySource, Invalid> {
    let DynamicMetaData {
        descriptor_key,
        metadata_key,
        default_value,
    } = wire;
    let at_key = at.field("metadata_key");
    let path = metadata_path(&at_key, required(&at_key, metadata_key.as_ref())?)?;
    Ok(EntrySource {
        key: nonempty(&at.field("descriptor_key"), descriptor_key)?.into(),
        value: ValueSource::Metadata(path),
        absent: defaulting(default_value),
    })
}

fn or(text: &str, default: &str) -> Arc<str> {
    if text.is_empty() {
        default.into()
    } else {
        text.into()
    }
}

fn defaulting(default: &str) -> Absent {
    match default {
        "" => Absent::NoDescriptor,
        default => Absent::Default(default.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(action: serde_json::Value) -> Result<EntrySource, Invalid> {
        let notes = Notes::default();
        let wire: RateLimit = from_json(json!({"actions": [action]})).expect("a rate limit");
        let rules = rules(&At::root(&notes), &[wire])?;
        Ok(rules[0].entries[0].clone())
    }

    #[test]
    fn an_entry_has_a_key_of_its_own_or_envoys() {
        let own = json!({"generic_key": {"descriptor_key": "k", "descriptor_value": "v"}});
        let envoys = json!({"generic_key": {"descriptor_value": "v"}});

        assert_eq!(&*translated(own).expect("valid").key, "k");
        assert_eq!(&*translated(envoys).expect("valid").key, "generic_key");
    }

    #[test]
    fn callers_are_counted_by_who_they_are() {
        let entry =
            translated(json!({"generic_key": {"descriptor_value": "%DOWNSTREAM_PEER_URI_SAN%"}}));

        assert_eq!(entry.expect("valid").value, ValueSource::PeerIdentity);
    }

    #[test]
    fn what_cannot_be_counted_by_is_refused_by_path() {
        let extension = json!({"extension": {"name": "expr"}});

        let error = translated(extension).expect_err("refused");

        assert_eq!(
            error.to_string(),
            "[0].actions[0].extension: \"expr\" is not supported"
        );
    }
}
