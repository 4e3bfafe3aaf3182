//! Faults to inject, and per-route configurations of filters.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use weft_proto::Any;
use weft_proto::envoy::config::route::v3::FilterConfig;
use weft_proto::envoy::extensions::filters::common::fault::v3::FaultDelay as WireDelay;
use weft_proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use weft_proto::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use weft_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort as WireAbort, HttpFault};

use super::at::{At, Invalid, duration, harmless, holds, opened, required, unsupported};
use super::share::fraction;
use super::text::header_matches;
use crate::config::fault::{AbortAnswer, FaultAbort, FaultConfig, FaultDelay};
use crate::config::percent::Percent;
use crate::config::route::FilterOverrides;

/// The name of the filter, by which it is switched off for a route.
pub(super) const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// Filters as a host, route or cluster wants them.
pub(super) fn overrides(
    at: &At<'_>,
    wire: &BTreeMap<String, Any>,
) -> Result<FilterOverrides, Invalid> {
    let mut overrides = FilterOverrides::default();
    for (name, any) in wire {
        let at = at.key(name);
        if holds::<HttpFault>(any) {
            overrides.fault = Some(Arc::new(fault(&at, &opened(&at, any)?)?));
        } else if holds::<FilterConfig>(any) {
            filter_config(&at, name, &opened(&at, any)?, &mut overrides)?;
        } else {
            return Err(at.refuse_value(&any.type_url));
        }
    }
    Ok(overrides)
}

fn filter_config(
    at: &At<'_>,
    name: &str,
    wire: &FilterConfig,
    overrides: &mut FilterOverrides,
) -> Result<(), Invalid> {
    let FilterConfig {
        config,
        is_optional,
        disabled,
    } = wire;
    match config {
        _ if *disabled && name == FAULT_FILTER => {
            overrides.fault = Some(Arc::default());
        }
        Some(config) if holds::<HttpFault>(config) && !disabled => {
            let at = at.field("config");
            overrides.fault = Some(Arc::new(fault(&at, &opened(&at, config)?)?));
        }
        _ if *is_optional => at.note(),
        _ => return Err(at.refuse_value(name)),
    }
    Ok(())
}

/// Delay and abort.
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
    unsupported!(at; upstream_cluster, downstream_nodes, max_active_faults, response_rate_limit);
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
        headers: header_matches(&at.field("headers"), headers)?,
    })
}

fn delay(at: &At<'_>, wire: &WireDelay) -> Result<FaultDelay, Invalid> {
    let WireDelay {
        percentage,
        fault_delay_secifier,
    } = wire;
    let at_fixed = at.field("fixed_delay");
    match required(&at_fixed, fault_delay_secifier.as_ref())? {
        FaultDelaySecifier::FixedDelay(fixed) => Ok(FaultDelay {
            duration: duration(&at_fixed, Some(fixed))?.unwrap_or_default(),
            percent: share(&at.field("percentage"), percentage.as_ref())?,
        }),
        FaultDelaySecifier::HeaderDelay(_) => Err(at.field("header_delay").refuse("not supported")),
    }
}

fn abort(at: &At<'_>, wire: &WireAbort) -> Result<FaultAbort, Invalid> {
    let WireAbort {
        percentage,
        response_body,
        error_type,
    } = wire;
    harmless!(at; response_body);
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
        ErrorType::HeaderAbort(_) => return Err(at.field("header_abort").refuse("not supported")),
    };
    Ok(FaultAbort {
        answer,
        percent: share(&at.field("percentage"), percentage.as_ref())?,
    })
}

fn share(
    at: &At<'_>,
    wire: Option<&weft_proto::envoy::r#type::v3::FractionalPercent>,
) -> Result<Percent, Invalid> {
    wire.map_or(Ok(Percent::ZERO), |wire| fraction(at, wire))
}

#[cfg(test)]
mod tests {
    use weft_proto::any::pack;
    use weft_proto::envoy::r#type::v3::FractionalPercent;

    use super::super::at::Notes;
    use super::*;

    fn aborting(status: u32) -> HttpFault {
        HttpFault {
            abort: Some(WireAbort {
                percentage: Some(FractionalPercent {
                    numerator: 50,
                    denominator: 0,
                }),
                error_type: Some(ErrorType::HttpStatus(status)),
                ..WireAbort::default()
            }),
            ..HttpFault::default()
        }
    }

    fn overridden(name: &str, any: Any) -> Result<FilterOverrides, Invalid> {
        let notes = Notes::default();
        overrides(&At::root(&notes), &BTreeMap::from([(name.to_owned(), any)]))
    }

    #[test]
    fn an_abort_keeps_its_status_and_share() {
        let overrides = overridden(FAULT_FILTER, pack(&aborting(503))).expect("valid");

        let abort = overrides
            .fault
            .expect("a fault")
            .abort
            .clone()
            .expect("an abort");
        assert_eq!(
            abort.answer,
            AbortAnswer::Http(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert_eq!(abort.percent, Percent::of(50));
    }

    #[test]
    fn a_fault_that_is_switched_off_is_an_empty_one() {
        let off = FilterConfig {
            disabled: true,
            ..FilterConfig::default()
        };

        let overrides = overridden(FAULT_FILTER, pack(&off)).expect("valid");

        assert_eq!(overrides.fault.as_deref(), Some(&FaultConfig::default()));
    }

    #[test]
    fn a_status_that_is_none_is_refused_by_path() {
        let error = overridden("f", pack(&aborting(99))).expect_err("refused");

        assert_eq!(
            error.to_string(),
            "[\"f\"].abort.http_status: no status from 200 to 599"
        );
    }

    #[test]
    fn a_filter_that_is_not_known_is_refused_unless_it_is_optional() {
        let unknown = FilterConfig {
            config: Some(Any::default()),
            ..FilterConfig::default()
        };
        let optional = FilterConfig {
            is_optional: true,
            ..unknown.clone()
        };

        assert!(overridden("cors", pack(&unknown)).is_err());
        assert_eq!(
            overridden("cors", pack(&optional)),
            Ok(FilterOverrides::default())
        );
    }
}
