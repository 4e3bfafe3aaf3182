//! As many requests at a time as the upstream bears.

use std::time::Duration;

use http::StatusCode;
use weft_proto::envoy::extensions::filters::http::adaptive_concurrency::v3::adaptive_concurrency::ConcurrencyControllerConfig;
use weft_proto::envoy::extensions::filters::http::adaptive_concurrency::v3::gradient_controller_config::{
    ConcurrencyLimitCalculationParams, MinimumRttCalculationParams,
};
use weft_proto::envoy::extensions::filters::http::adaptive_concurrency::v3::{
    AdaptiveConcurrency, GradientControllerConfig,
};
use weft_proto::envoy::r#type::v3::Percent as WirePercent;

use super::super::at::{At, Invalid, duration, required};
use super::super::share::percent;
use super::ext_authz::feature;
use super::local_ratelimit::refusal_status;
use crate::config::filter::adaptive_concurrency::{AdaptiveConcurrencyConfig, MinRtt};
use crate::config::filter::live::Live;

/// Envoy's.
const DEFAULT_MAX_LIMIT: u32 = 1000;
/// Envoy's.
const DEFAULT_MIN_LIMIT: u32 = 3;
/// Envoy's.
const DEFAULT_REQUESTS: u32 = 50;

/// The filter; `None` where it is switched off.
pub(super) fn adaptive_concurrency(
    at: &At<'_>,
    wire: &AdaptiveConcurrency,
) -> Result<Option<AdaptiveConcurrencyConfig>, Invalid> {
    let AdaptiveConcurrency {
        enabled,
        concurrency_limit_exceeded_status: status,
        concurrency_controller_config,
    } = wire;
    let at_config = at.field("concurrency_controller_config");
    let controller = required(&at_config, concurrency_controller_config.as_ref())?;
    let ConcurrencyControllerConfig::GradientControllerConfig(gradient) = controller;
    let at_gradient = at.field("gradient_controller_config");
    let GradientControllerConfig {
        sample_aggregate_percentile,
        concurrency_limit_params,
        min_rtt_calc_params,
    } = gradient;
    let at_limit = at_gradient.field("concurrency_limit_params");
    let limit = required(&at_limit, concurrency_limit_params.as_ref())?;
    let ConcurrencyLimitCalculationParams {
        max_concurrency_limit,
        concurrency_update_interval,
        min_concurrency_limit,
    } = limit;
    let at_interval = at_limit.field("concurrency_update_interval");
    let interval = duration(&at_interval, concurrency_update_interval.as_ref())?;
    let update_interval = *required(&at_interval, interval.as_ref())?;
    let at_rtt = at_gradient.field("min_rtt_calc_params");
    let rtt = required(&at_rtt, min_rtt_calc_params.as_ref())?;
    let max_limit = max_concurrency_limit.unwrap_or(DEFAULT_MAX_LIMIT).max(1);
    let min_limit = min_concurrency_limit.unwrap_or(DEFAULT_MIN_LIMIT);
    let at_percentile = at_gradient.field("sample_aggregate_percentile");
    let status = match status {
        None => StatusCode::SERVICE_UNAVAILABLE,
        wire => refusal_status(
            &at.field("concurrency_limit_exceeded_status"),
            wire.as_ref(),
        )?,
    };
    let config = AdaptiveConcurrencyConfig {
        percentile: share(&at_percentile, sample_aggregate_percentile.as_ref(), 0.5)?,
        max_limit,
        min_limit: min_limit.clamp(1, max_limit),
        update_interval,
        min_rtt: min_rtt(&at_rtt, rtt)?,
        buffer: share(&at_rtt.field("buffer"), rtt.buffer.as_ref(), 0.25)?,
        status,
        live: Live::default(),
    };
    let is_enabled = feature(&at.field("enabled"), enabled.as_ref(), true)?;
    Ok(is_enabled.then_some(config))
}

fn min_rtt(at: &At<'_>, wire: &MinimumRttCalculationParams) -> Result<MinRtt, Invalid> {
    let MinimumRttCalculationParams {
        interval,
        fixed_value,
        request_count,
        jitter,
        min_concurrency,
        buffer: _,
    } = wire;
    if let Some(fixed) = duration(&at.field("fixed_value"), fixed_value.as_ref())? {
        return Ok(MinRtt::Fixed(fixed));
    }
    let at_interval = at.field("interval");
    let interval = duration(&at_interval, interval.as_ref())?;
    let interval = *required(&at_interval, interval.as_ref())?;
    if interval < Duration::from_millis(1) {
        return Err(at_interval.refuse("must be at least 1 ms"));
    }
    Ok(MinRtt::Measured {
        interval,
        jitter: share(&at.field("jitter"), jitter.as_ref(), 0.15)?,
        requests: request_count.unwrap_or(DEFAULT_REQUESTS).max(1),
        concurrency: min_concurrency.unwrap_or(DEFAULT_MIN_LIMIT).max(1),
    })
}

fn share(at: &At<'_>, wire: Option<&WirePercent>, default: f64) -> Result<f64, Invalid> {
    let Some(wire) = wire else { return Ok(default) };
    Ok(f64::from(percent(at, wire)?.millionths()) / 1e6)
}
