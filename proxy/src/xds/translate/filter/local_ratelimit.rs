//! Rate limits that the proxy keeps itself.

use std::time::Duration;

use http::StatusCode;
use weft_proto::envoy::config::core::v3::RuntimeFractionalPercent;
use weft_proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use weft_proto::envoy::extensions::common::ratelimit::v3::{
    LocalRateLimitDescriptor, XRateLimitHeadersRfcVersion,
};
use weft_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use weft_proto::envoy::r#type::v3::{HttpStatus, TokenBucket};

use super::super::at::{At, Invalid, duration, enumeration, nonempty, required, unsupported};
use super::super::headers::formatted_mutations;
use super::super::share::runtime_fraction;
use super::rate_limits::{host_rules, rules};
use crate::config::filter::live::Live;
use crate::config::filter::local_ratelimit::{Bucket, DescriptorLimit, LocalRateLimitConfig};
use crate::config::percent::Percent;

/// Envoy's: buckets are not filled more often.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// Envoy's number of values that an open entry may stand for.
const DEFAULT_MAX_DYNAMIC: u32 = 20;

/// The filter, for a chain or a part of the routes.
pub(super) fn local_ratelimit(
    at: &At<'_>,
    wire: &LocalRateLimit,
) -> Result<LocalRateLimitConfig, Invalid> {
    let LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        request_headers_to_add_when_not_enforced,
        local_rate_limit_per_downstream_connection,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        local_cluster_rate_limit,
        rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = wire;
    unsupported!(at; local_cluster_rate_limit);
    let at_tells = at.field("enable_x_ratelimit_headers");
    let tells: XRateLimitHeadersRfcVersion = enumeration(&at_tells, *enable_x_ratelimit_headers)?;
    let at_not_enforced = "request_headers_to_add_when_not_enforced";
    let max_dynamic = max_dynamic_descriptors.unwrap_or(DEFAULT_MAX_DYNAMIC);
    Ok(LocalRateLimitConfig {
        stat_prefix: nonempty(&at.field("stat_prefix"), stat_prefix)?.into(),
        bucket: token_bucket
            .as_ref()
            .map(|wire| bucket(&at.field("token_bucket"), wire))
            .transpose()?,
        descriptors: descriptor_limits(&at.field("descriptors"), descriptors)?,
        rules: rules(&at.field("rate_limits"), rate_limits)?,
        host_rules: host_rules(&at.field("vh_rate_limits"), *vh_rate_limits)?,
        stage: *stage,
        enabled: fraction(&at.field("filter_enabled"), filter_enabled.as_ref())?,
        enforced: fraction(&at.field("filter_enforced"), filter_enforced.as_ref())?,
        status: refusal_status(&at.field("status"), status.as_ref())?,
        is_resource_exhausted: *rate_limited_as_resource_exhausted,
        response_headers: formatted_mutations(
            at,
            ("response_headers_to_add", response_headers_to_add),
            ("", &[]),
        )?,
        request_headers: formatted_mutations(
            at,
            (at_not_enforced, request_headers_to_add_when_not_enforced),
            ("", &[]),
        )?,
        per_connection: *local_rate_limit_per_downstream_connection,
        always_takes_default: always_consume_default_token_bucket.unwrap_or(true),
        tells_limits: tells == XRateLimitHeadersRfcVersion::DraftVersion03,
        tells_retry_after: *enable_retry_after_header,
        max_dynamic: usize::try_from(max_dynamic).unwrap_or(usize::MAX).max(1),
        live: Live::default(),
    })
}

/// None where it is not said, as in Envoy.
fn fraction(at: &At<'_>, wire: Option<&RuntimeFractionalPercent>) -> Result<Percent, Invalid> {
    wire.map_or(Ok(Percent::ZERO), |wire| runtime_fraction(at, wire))
}

/// What callers over a limit are told: an error, and 429 where none is named.
pub(super) fn refusal_status(
    at: &At<'_>,
    wire: Option<&HttpStatus>,
) -> Result<StatusCode, Invalid> {
    let Some(HttpStatus { code }) = wire else {
        return Ok(StatusCode::TOO_MANY_REQUESTS);
    };
    let status = u16::try_from(*code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| status.as_u16() < 600)
        .ok_or_else(|| at.field("code").refuse(format_args!("{code} is no status")))?;
    // Envoy: what is no error is not meant.
    Ok(match status.as_u16() {
        400.. => status,
        _ => StatusCode::TOO_MANY_REQUESTS,
    })
}

/// A bucket that can fill.
pub(super) fn bucket(at: &At<'_>, wire: &TokenBucket) -> Result<Bucket, Invalid> {
    let TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval,
    } = wire;
    let at_interval = at.field("fill_interval");
    let interval = duration(&at_interval, fill_interval.as_ref())?;
    let interval = *required(&at_interval, interval.as_ref())?;
    if interval < MIN_INTERVAL {
        return Err(at_interval.refuse("must be at least 50 ms"));
    }
    let tokens_per_fill = tokens_per_fill.unwrap_or(1);
    for (field, value) in [
        ("max_tokens", *max_tokens),
        ("tokens_per_fill", tokens_per_fill),
    ] {
        if value == 0 {
            return Err(at.field(field).refuse("must be at least 1"));
        }
    }
    Ok(Bucket {
        max_tokens: *max_tokens,
        tokens_per_fill,
        fill_interval: interval,
    })
}

fn descriptor_limits(
    at: &At<'_>,
    wire: &[LocalRateLimitDescriptor],
) -> Result<Vec<DescriptorLimit>, Invalid> {
    let limit = |at: At<'_>, wire: &LocalRateLimitDescriptor| {
        let LocalRateLimitDescriptor {
            entries,
            token_bucket,
            shadow_mode,
        } = wire;
        let at_bucket = at.field("token_bucket");
        let at_entries = at.field("entries");
        if entries.is_empty() {
            return Err(at_entries.refuse("must not be empty"));
        }
        let entries = entries.iter().enumerate().map(|(index, entry)| {
            let at = at_entries.index(index);
            let Entry { key, value } = entry;
            let key = nonempty(&at.field("key"), key)?;
            let value = (!value.is_empty()).then(|| value.as_str().into());
            Ok((key.into(), value))
        });
        Ok(DescriptorLimit {
            entries: entries.collect::<Result<_, Invalid>>()?,
            bucket: bucket(&at_bucket, required(&at_bucket, token_bucket.as_ref())?)?,
            is_shadow: *shadow_mode,
        })
    };
    wire.iter()
        .enumerate()
        .map(|(index, wire)| limit(at.index(index), wire))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<LocalRateLimitConfig, Invalid> {
        let notes = Notes::default();
        local_ratelimit(&At::root(&notes), &from_json(json).expect("a rate limit"))
    }

    #[test]
    fn what_is_not_said_is_as_in_envoy() {
        let config = translated(json!({"stat_prefix": "a"})).expect("valid");

        assert_eq!(
            (config.enabled, config.enforced),
            (Percent::ZERO, Percent::ZERO)
        );
        assert_eq!(config.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(config.always_takes_default);
    }

    #[test]
    fn an_entry_without_a_value_is_open() {
        let config = translated(json!({"stat_prefix": "a", "descriptors": [{
            "entries": [{"key": "caller", "value": ""}, {"key": "path", "value": "/a"}],
            "token_bucket": {"max_tokens": 1, "fill_interval": "1s"},
        }]}))
        .expect("valid");

        let entries = &config.descriptors[0].entries;
        assert_eq!(entries[0], ("caller".into(), None));
        assert_eq!(entries[1], ("path".into(), Some("/a".into())));
    }

    #[test]
    fn a_bucket_that_never_fills_is_refused() {
        let refused = |bucket| {
            let wire = json!({"stat_prefix": "a", "token_bucket": bucket});
            translated(wire).expect_err("refused").to_string()
        };

        assert_eq!(
            refused(json!({"max_tokens": 0, "fill_interval": "1s"})),
            "token_bucket.max_tokens: must be at least 1"
        );
        assert_eq!(
            refused(json!({"max_tokens": 1, "fill_interval": "0.01s"})),
            "token_bucket.fill_interval: must be at least 50 ms"
        );
        assert_eq!(
            refused(json!({"max_tokens": 1})),
            "token_bucket.fill_interval: missing"
        );
    }
}
