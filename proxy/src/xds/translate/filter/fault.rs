//! Faults to inject.

use std::sync::Arc;

use http::StatusCode;
use weft_proto::envoy::extensions::filters::common::fault::v3::FaultDelay as WireDelay;
use weft_proto::envoy::extensions::filters::common::fault::v3::FaultRateLimit as WireRate;
use weft_proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use weft_proto::envoy::extensions::filters::common::fault::v3::fault_rate_limit::LimitType;
use weft_proto::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use weft_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort as WireAbort, HttpFault};
use weft_proto::envoy::r#type::v3::FractionalPercent;

use super::super::at::{At, Invalid, duration, harmless, required};
use super::super::share::fraction;
use super::super::text::header_matches;
use crate::config::fault::{
    AbortAnswer, DelayDuration, FaultAbort, FaultConfig, FaultDelay, FaultRate, RateLimit,
};
use crate::config::filter::live::Live;
use crate::config::percent::Percent;

/// Delay, abort and response rate.
pub(super) fn fault(at: &At<'_>, wire: &HttpFault) -> Result<FaultConfig, Invalid> {
    let HttpFault {
        delay: delays,
        abort: aborts,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = wire;
    harmless!(at; delay_percent_runtime, abort_percent_runtime, delay_duration_runtime,
        abort_http_status_runtime, max_active_faults_runtime, response_rate_limit_percent_runtime,
        abort_grpc_status_runtime, disable_downstream_cluster_stats, filter_metadata);
    Ok(FaultConfig {
        delay: delays
            .as_ref()
            .map(|wire| delay(&at.field("delay"), wire))
            .transpose()?,
        abort: aborts
            .as_ref()
            .map(|wire| abort(&at.field("abort"), wire))
            .transpose()?,
        rate: response_rate_limit
            .as_ref()
            .map(|wire| rate(&at.field("response_rate_limit"), wire))
            .transpose()?,
        headers: header_matches(&at.field("headers"), headers)?,
        upstream_cluster: (!upstream_cluster.is_empty()).then(|| upstream_cluster.as_str().into()),
        downstream_nodes: downstream_nodes
            .iter()
            .map(|node| Arc::from(node.as_str()))
            .collect(),
        max_active: max_active_faults.map(u64::from),
        live: Live::default(),
    })
}

fn delay(at: &At<'_>, wire: &WireDelay) -> Result<FaultDelay, Invalid> {
    let WireDelay {
        percentage,
        fault_delay_secifier,
    } = wire;
    let at_kind = at.field("fault_delay_secifier");
    let duration = match required(&at_kind, fault_delay_secifier.as_ref())? {
        FaultDelaySecifier::FixedDelay(fixed) => {
            let at = at.field("fixed_delay");
            let fixed = duration(&at, Some(fixed))?.unwrap_or_default();
            if fixed.is_zero() {
                return Err(at.refuse("must be more than nothing"));
            }
            DelayDuration::Fixed(fixed)
        }
        FaultDelaySecifier::HeaderDelay(_) => DelayDuration::Header,
    };
    Ok(FaultDelay {
        duration,
        percent: share(&at.field("percentage"), percentage.as_ref())?,
    })
}

fn rate(at: &At<'_>, wire: &WireRate) -> Result<FaultRate, Invalid> {
    let WireRate {
        percentage,
        limit_type,
    } = wire;
    let limit = match required(&at.field("limit_type"), limit_type.as_ref())? {
        LimitType::FixedLimit(fixed) if fixed.limit_kbps == 0 => {
            let at = at.field("fixed_limit");
            return Err(at.field("limit_kbps").refuse("must be at least 1"));
        }
        LimitType::FixedLimit(fixed) => RateLimit::Fixed(fixed.limit_kbps),
        LimitType::HeaderLimit(_) => RateLimit::Header,
    };
    Ok(FaultRate {
        limit,
        percent: share(&at.field("percentage"), percentage.as_ref())?,
    })
}

fn abort(at: &At<'_>, wire: &WireAbort) -> Result<FaultAbort, Invalid> {
    let WireAbort {
        percentage,
        response_body,
        error_type,
    } = wire;
    let answer = match required(&at.field("error_type"), error_type.as_ref())? {
        ErrorType::HttpStatus(status) => {
            let status = u16::try_from(*status)
                .ok()
                .filter(|status| (200..600).contains(status))
                .and_then(|status| StatusCode::from_u16(status).ok());
            let at = at.field("http_status");
            AbortAnswer::Http(status.ok_or_else(|| at.refuse("no status from 200 to 599"))?)
        }
        ErrorType::GrpcStatus(status) => AbortAnswer::Grpc(*status),
        ErrorType::HeaderAbort(_) => AbortAnswer::Header,
    };
    Ok(FaultAbort {
        answer,
        percent: share(&at.field("percentage"), percentage.as_ref())?,
        body: (!response_body.is_empty()).then(|| response_body.as_str().into()),
    })
}

fn share(at: &At<'_>, wire: Option<&FractionalPercent>) -> Result<Percent, Invalid> {
    wire.map_or(Ok(Percent::ZERO), |wire| fraction(at, wire))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<FaultConfig, Invalid> {
        let notes = Notes::default();
        fault(&At::root(&notes), &from_json(json).expect("a fault"))
    }

    #[test]
    fn an_abort_keeps_its_status_and_share() {
        let config =
            translated(json!({"abort": {"http_status": 503, "percentage": {"numerator": 50}}}));

        let abort = config.expect("valid").abort.expect("an abort");
        assert_eq!(
            abort.answer,
            AbortAnswer::Http(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert_eq!(abort.percent, Percent::of(50));
    }

    #[test]
    fn what_requests_ask_for_is_known() {
        let config = translated(json!({
            "delay": {"header_delay": {}, "percentage": {"numerator": 100}},
            "abort": {"header_abort": {}, "percentage": {"numerator": 100}},
            "response_rate_limit": {"header_limit": {}, "percentage": {"numerator": 100}},
        }))
        .expect("valid");

        assert_eq!(
            config.delay.expect("a delay").duration,
            DelayDuration::Header
        );
        assert_eq!(config.abort.expect("an abort").answer, AbortAnswer::Header);
        assert_eq!(config.rate.expect("a rate").limit, RateLimit::Header);
    }

    #[test]
    fn what_cannot_be_is_refused_by_path() {
        let refused = |json| translated(json).expect_err("refused").to_string();

        assert_eq!(
            refused(json!({"abort": {"http_status": 99}})),
            "abort.http_status: no status from 200 to 599"
        );
        assert_eq!(
            refused(json!({"response_rate_limit": {"fixed_limit": {"limit_kbps": 0}}})),
            "response_rate_limit.fixed_limit.limit_kbps: must be at least 1"
        );
        assert_eq!(
            refused(json!({"delay": {}})),
            "delay.fault_delay_secifier: missing"
        );
    }
}
