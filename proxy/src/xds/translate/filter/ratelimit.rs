//! Rate limits that a service keeps for all proxies.

use std::time::Duration;

use http::StatusCode;
use weft_proto::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use weft_proto::envoy::extensions::filters::http::ratelimit::v3::rate_limit::XRateLimitHeadersRfcVersion;
use weft_proto::envoy::extensions::filters::http::ratelimit::v3::rate_limit_per_route::VhRateLimitsOptions;
use weft_proto::envoy::extensions::filters::http::ratelimit::v3::{RateLimit, RateLimitPerRoute};

use super::super::at::{At, Invalid, duration, enumeration, harmless, nonempty, required};
use super::super::headers::formatted_mutations;
use super::super::share::runtime_fraction;
use super::ext_authz::version;
use super::local_ratelimit::refusal_status;
use super::rate_limits::rules;
use super::service::grpc;
use crate::config::filter::live::Live;
use crate::config::filter::rate_limits::HostRules;
use crate::config::filter::ratelimit::{Origin, RateLimitConfig, RateLimitOverride};
use crate::config::percent::Percent;

/// Envoy's.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(20);

/// Envoy's.
const DEFAULT_NAMESPACE: &str = "envoy.filters.http.ratelimit";

/// The filter.
pub(super) fn ratelimit(at: &At<'_>, wire: &RateLimit) -> Result<RateLimitConfig, Invalid> {
    let RateLimit {
        domain,
        stage,
        request_type,
        timeout,
        failure_mode_deny,
        rate_limited_as_resource_exhausted,
        rate_limit_service,
        enable_x_ratelimit_headers,
        disable_x_envoy_ratelimited_header,
        rate_limited_status,
        response_headers_to_add,
        status_on_error,
        stat_prefix,
        filter_enabled,
        filter_enforced,
        failure_mode_deny_percent,
        rate_limits,
        metadata_namespace,
        enable_retry_after_header,
    } = wire;
    let at_service = at.field("rate_limit_service");
    let RateLimitServiceConfig {
        grpc_service,
        transport_api_version,
    } = required(&at_service, rate_limit_service.as_ref())?;
    version(&at_service, *transport_api_version)?;
    let at_grpc = at_service.field("grpc_service");
    let mut service = grpc(
        &at_grpc,
        required(&at_grpc, grpc_service.as_ref())?,
        DEFAULT_TIMEOUT,
    )?;
    let timeout = duration(&at.field("timeout"), timeout.as_ref())?;
    if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
        service.timeout = timeout;
    }
    let share = |field: &'static str, wire: &Option<_>, default| match wire {
        Some(wire) => runtime_fraction(&at.field(field), wire),
        None => Ok(default),
    };
    let failure_denies = match failure_mode_deny {
        true => Percent::ALL,
        false => Percent::ZERO,
    };
    let at_tells = at.field("enable_x_ratelimit_headers");
    Ok(RateLimitConfig {
        service,
        domain: nonempty(&at.field("domain"), domain)?.into(),
        stage: *stage,
        rules: rules(&at.field("rate_limits"), rate_limits)?,
        origin: match request_type.as_str() {
            "" | "both" => Origin::Both,
            "internal" => Origin::Internal,
            "external" => Origin::External,
            other => return Err(at.field("request_type").refuse_value(other)),
        },
        failure_denies: share(
            "failure_mode_deny_percent",
            failure_mode_deny_percent,
            failure_denies,
        )?,
        status_on_error: match status_on_error {
            None => StatusCode::INTERNAL_SERVER_ERROR,
            wire => refusal_status(&at.field("status_on_error"), wire.as_ref())?,
        },
        status: refusal_status(
            &at.field("rate_limited_status"),
            rate_limited_status.as_ref(),
        )?,
        is_resource_exhausted: *rate_limited_as_resource_exhausted,
        tells_limits: match enumeration(&at_tells, *enable_x_ratelimit_headers)? {
            XRateLimitHeadersRfcVersion::Off => false,
            XRateLimitHeadersRfcVersion::DraftVersion03 => true,
        },
        tells_retry_after: *enable_retry_after_header,
        metadata_namespace: match metadata_namespace.as_str() {
            "" => DEFAULT_NAMESPACE.into(),
            namespace => namespace.into(),
        },
        marks_refusals: !disable_x_envoy_ratelimited_header,
        response_headers: formatted_mutations(
            at,
            ("response_headers_to_add", response_headers_to_add),
            ("", &[]),
        )?,
        stat_prefix: stat_prefix.as_str().into(),
        enabled: share("filter_enabled", filter_enabled, Percent::ALL)?,
        enforced: share("filter_enforced", filter_enforced, Percent::ALL)?,
        live: Live::default(),
    })
}

/// For a part of the routes.
pub(super) fn per_route(
    at: &At<'_>,
    wire: &RateLimitPerRoute,
) -> Result<RateLimitOverride, Invalid> {
    let RateLimitPerRoute {
        vh_rate_limits,
        override_option,
        rate_limits,
        domain,
    } = wire;
    // Envoy has the field, and makes nothing of it.
    harmless!(at; override_option);
    Ok(RateLimitOverride {
        host_rules: match enumeration(&at.field("vh_rate_limits"), *vh_rate_limits)? {
            VhRateLimitsOptions::Override => HostRules::Override,
            VhRateLimitsOptions::Include => HostRules::Include,
            VhRateLimitsOptions::Ignore => HostRules::Ignore,
        },
        rules: rules(&at.field("rate_limits"), rate_limits)?,
        domain: domain.as_str().into(),
    })
}
