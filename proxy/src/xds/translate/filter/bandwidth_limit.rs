//! Bodies that are slowed down.

use std::time::Duration;

use weft_proto::envoy::extensions::filters::http::bandwidth_limit::v3::BandwidthLimit;
use weft_proto::envoy::extensions::filters::http::bandwidth_limit::v3::bandwidth_limit::EnableMode;

use super::super::at::{At, Invalid, duration, enumeration, harmless, nonempty, unsupported};
use super::ext_authz::feature;
use crate::config::filter::bandwidth_limit::BandwidthLimitConfig;
use crate::config::filter::live::Live;

/// Envoy's.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(50);

/// The filter, for a chain or a part of the routes.
pub(super) fn bandwidth_limit(
    at: &At<'_>,
    wire: &BandwidthLimit,
) -> Result<BandwidthLimitConfig, Invalid> {
    let BandwidthLimit {
        stat_prefix,
        enable_mode,
        limit_kbps,
        fill_interval,
        runtime_enabled,
        enable_response_trailers,
        response_trailer_prefix,
    } = wire;
    unsupported!(at; enable_response_trailers);
    harmless!(at; response_trailer_prefix);
    let (requests, responses) = match enumeration(&at.field("enable_mode"), *enable_mode)? {
        EnableMode::Disabled => (false, false),
        EnableMode::Request => (true, false),
        EnableMode::Response => (false, true),
        EnableMode::RequestAndResponse => (true, true),
    };
    let is_enabled = feature(&at.field("runtime_enabled"), runtime_enabled.as_ref(), true)?;
    let at_limit = at.field("limit_kbps");
    let kibibytes = match limit_kbps {
        Some(0) => return Err(at_limit.refuse("must be at least 1")),
        None if requests || responses => return Err(at_limit.refuse("missing")),
        limit => limit.unwrap_or(1),
    };
    let at_interval = at.field("fill_interval");
    let interval = duration(&at_interval, fill_interval.as_ref())?.unwrap_or(DEFAULT_INTERVAL);
    if !(Duration::from_millis(20)..=Duration::from_secs(1)).contains(&interval) {
        return Err(at_interval.refuse("must be from 20 ms to 1 s"));
    }
    Ok(BandwidthLimitConfig {
        stat_prefix: nonempty(&at.field("stat_prefix"), stat_prefix)?.into(),
        requests: requests && is_enabled,
        responses: responses && is_enabled,
        kibibytes,
        interval,
        live: Live::default(),
    })
}
