//! Policies for callers of other origins.

use http::HeaderValue;
use weft_proto::envoy::config::core::v3::RuntimeFractionalPercent;
use weft_proto::envoy::config::route::v3::CorsPolicy as RoutePolicy;
use weft_proto::envoy::config::route::v3::cors_policy::EnabledSpecifier;
use weft_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy as WirePolicy;
use weft_proto::envoy::r#type::matcher::v3::StringMatcher;

use super::super::at::{At, Invalid};
use super::super::share::runtime_fraction;
use super::super::text::text_match;
use crate::config::filter::cors::CorsPolicy;
use crate::config::matching::TextMatch;
use crate::config::percent::Percent;

/// As a filter's configuration for a part of the routes.
pub(super) fn policy(at: &At<'_>, wire: &WirePolicy) -> Result<CorsPolicy, Invalid> {
    let WirePolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = wire;
    Ok(CorsPolicy {
        origins: origins(
            &at.field("allow_origin_string_match"),
            allow_origin_string_match,
        )?,
        methods: value(&at.field("allow_methods"), allow_methods)?,
        headers: value(&at.field("allow_headers"), allow_headers)?,
        exposed: value(&at.field("expose_headers"), expose_headers)?,
        max_age: value(&at.field("max_age"), max_age)?,
        allows_credentials: *allow_credentials,
        allows_private_network: *allow_private_network_access,
        forwards_others: *forward_not_matching_preflights,
        enabled: share(&at.field("filter_enabled"), filter_enabled.as_ref())?,
        shadow: share(&at.field("shadow_enabled"), shadow_enabled.as_ref())?,
    })
}

/// As a field of hosts and routes.
pub(super) fn route_policy(at: &At<'_>, wire: &RoutePolicy) -> Result<CorsPolicy, Invalid> {
    let RoutePolicy {
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        shadow_enabled,
        allow_origin_string_match,
        allow_private_network_access,
        forward_not_matching_preflights,
        enabled_specifier,
    } = wire;
    let filter_enabled = enabled_specifier.as_ref().map(|specifier| {
        let EnabledSpecifier::FilterEnabled(enabled) = specifier;
        enabled.clone()
    });
    let same = WirePolicy {
        allow_origin_string_match: allow_origin_string_match.clone(),
        allow_methods: allow_methods.clone(),
        allow_headers: allow_headers.clone(),
        expose_headers: expose_headers.clone(),
        max_age: max_age.clone(),
        allow_credentials: *allow_credentials,
        filter_enabled,
        shadow_enabled: shadow_enabled.clone(),
        allow_private_network_access: *allow_private_network_access,
        forward_not_matching_preflights: *forward_not_matching_preflights,
    };
    policy(at, &same)
}

fn origins(at: &At<'_>, wire: &[StringMatcher]) -> Result<Vec<TextMatch>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| text_match(&at.index(index), wire))
        .collect()
}

fn value(at: &At<'_>, text: &str) -> Result<Option<HeaderValue>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(text);
    value.map(Some).map_err(|_| at.refuse("no header value"))
}

fn share(at: &At<'_>, wire: Option<&RuntimeFractionalPercent>) -> Result<Option<Percent>, Invalid> {
    wire.map(|wire| runtime_fraction(at, wire)).transpose()
}
