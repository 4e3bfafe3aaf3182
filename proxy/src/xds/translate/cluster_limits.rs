//! Circuit breakers and outlier detection of a cluster.

use weft_proto::envoy::config::cluster::v3::circuit_breakers::Thresholds as WireThresholds;
use weft_proto::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use weft_proto::envoy::config::cluster::v3::{CircuitBreakers, OutlierDetection as WireOutlier};
use weft_proto::envoy::config::core::v3::RoutingPriority;

use super::at::{At, Invalid, duration, enumeration, harmless, unsupported};
use super::share::percent;
use crate::config::cluster::{OutlierDetection, RetryLimit, Thresholds};
use crate::config::percent::Percent;

/// Envoy's share of active requests that may be retries, where a budget doesn't say.
const DEFAULT_BUDGET_PERCENT: u32 = 20;
/// Envoy's: so many retries in any case.
const DEFAULT_MIN_RETRIES: u32 = 3;
/// All of the ejections that a test would make; none is the other value that is supported.
const ENFORCED: u32 = 100;

/// What may be in flight: the thresholds of the default priority.
pub(super) fn thresholds(
    at: &At<'_>,
    wire: Option<&CircuitBreakers>,
) -> Result<Thresholds, Invalid> {
    let Some(wire) = wire else {
        return Ok(Thresholds::default());
    };
    let CircuitBreakers {
        thresholds,
        per_host_thresholds,
    } = wire;
    unsupported!(at; per_host_thresholds);
    let at = at.field("thresholds");
    let mut found = Thresholds::default();
    for (index, wire) in thresholds.iter().enumerate() {
        let at = at.index(index);
        match enumeration(&at.field("priority"), wire.priority)? {
            RoutingPriority::Default => found = of_priority(&at, wire)?,
            // No request has this priority: routes that ask for it are refused.
            RoutingPriority::High => at.note(),
        }
    }
    Ok(found)
}

fn of_priority(at: &At<'_>, wire: &WireThresholds) -> Result<Thresholds, Invalid> {
    let WireThresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = wire;
    harmless!(at; track_remaining, max_connection_pools);
    let default = Thresholds::default();
    let retries = match (retry_budget, max_retries) {
        (Some(wire), _) => budget(&at.field("retry_budget"), wire)?,
        (None, Some(count)) => RetryLimit::Count(*count),
        (None, None) => default.retries,
    };
    Ok(Thresholds {
        max_connections: max_connections.unwrap_or(default.max_connections),
        max_pending_requests: max_pending_requests.unwrap_or(default.max_pending_requests),
        max_requests: max_requests.unwrap_or(default.max_requests),
        retries,
    })
}

fn budget(at: &At<'_>, wire: &RetryBudget) -> Result<RetryLimit, Invalid> {
    let RetryBudget {
        budget_percent,
        min_retry_concurrency,
        budget_interval,
    } = wire;
    harmless!(at; budget_interval);
    let at = at.field("budget_percent");
    Ok(RetryLimit::Budget {
        share: match budget_percent {
            Some(wire) => percent(&at, wire)?,
            None => Percent::of(DEFAULT_BUDGET_PERCENT),
        },
        min_concurrency: min_retry_concurrency.unwrap_or(DEFAULT_MIN_RETRIES),
    })
}

/// When an endpoint is taken out. Ejection by success rate and by failure percentage is not done: it is refused
/// where it is asked for, and Envoy's default of it (for clusters of five endpoints and more) is left out.
pub(super) fn outlier_detection(
    at: &At<'_>,
    wire: &WireOutlier,
) -> Result<OutlierDetection, Invalid> {
    let WireOutlier {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = wire;
    let (success_rate, local_success_rate) = (
        enforcing_success_rate.filter(|percent| *percent > 0),
        enforcing_local_origin_success_rate.filter(|percent| *percent > 0),
    );
    let (failures, local_failures) = (
        enforcing_failure_percentage.filter(|percent| *percent > 0),
        enforcing_failure_percentage_local_origin.filter(|percent| *percent > 0),
    );
    for (name, value) in [
        ("enforcing_success_rate", success_rate),
        ("enforcing_local_origin_success_rate", local_success_rate),
        ("enforcing_failure_percentage", failures),
        ("enforcing_failure_percentage_local_origin", local_failures),
    ] {
        if let Some(value) = value {
            return Err(at.field(name).refuse_value(value));
        }
    }
    unsupported!(at; monitors, detect_degraded_hosts);
    harmless!(at; success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
        failure_percentage_threshold, failure_percentage_minimum_hosts,
        failure_percentage_request_volume, max_ejection_time_jitter,
        successful_active_health_check_uneject_host, always_eject_one_host);
    let default = OutlierDetection::default();
    let base = duration(&at.field("base_ejection_time"), base_ejection_time.as_ref())?
        .unwrap_or(default.base_ejection_time);
    Ok(OutlierDetection {
        consecutive_5xx: if is_enforced(
            at,
            "enforcing_consecutive_5xx",
            *enforcing_consecutive_5xx,
            ENFORCED,
        )? {
            consecutive_5xx.unwrap_or(default.consecutive_5xx)
        } else {
            0
        },
        consecutive_gateway_failure: if is_enforced(
            at,
            "enforcing_consecutive_gateway_failure",
            *enforcing_consecutive_gateway_failure,
            0,
        )? {
            consecutive_gateway_failure.unwrap_or(5)
        } else {
            0
        },
        consecutive_local_origin_failure: if is_enforced(
            at,
            "enforcing_consecutive_local_origin_failure",
            *enforcing_consecutive_local_origin_failure,
            ENFORCED,
        )? {
            consecutive_local_origin_failure.unwrap_or(default.consecutive_local_origin_failure)
        } else {
            0
        },
        split_local_origin: *split_external_local_origin_errors,
        interval: duration(&at.field("interval"), interval.as_ref())?.unwrap_or(default.interval),
        base_ejection_time: base,
        max_ejection_time: duration(&at.field("max_ejection_time"), max_ejection_time.as_ref())?
            .unwrap_or(default.max_ejection_time)
            .max(base),
        max_ejection_percent: max_ejection_percent
            .map_or(default.max_ejection_percent, Percent::of),
    })
}

/// Whether a test ejects; by chance is refused.
fn is_enforced(at: &At<'_>, name: &str, wire: Option<u32>, default: u32) -> Result<bool, Invalid> {
    match wire.unwrap_or(default) {
        0 => Ok(false),
        ENFORCED => Ok(true),
        other => Err(at.field(name).refuse_value(other)),
    }
}

#[cfg(test)]
mod tests {
    use weft_proto::envoy::r#type::v3::Percent as WirePercent;

    use super::super::at::Notes;
    use super::*;

    #[test]
    fn a_budget_goes_before_a_count_of_retries() {
        let notes = Notes::default();
        let wire = CircuitBreakers {
            thresholds: vec![WireThresholds {
                max_requests: Some(7),
                max_retries: Some(3),
                retry_budget: Some(RetryBudget {
                    budget_percent: Some(WirePercent { value: 25.0 }),
                    ..RetryBudget::default()
                }),
                ..WireThresholds::default()
            }],
            ..CircuitBreakers::default()
        };

        let found = thresholds(&At::root(&notes), Some(&wire)).expect("valid");

        assert_eq!(found.max_requests, 7);
        assert_eq!(found.max_connections, 1024);
        assert_eq!(
            found.retries,
            RetryLimit::Budget {
                share: Percent::of(25),
                min_concurrency: 3
            }
        );
    }

    #[test]
    fn a_test_that_is_not_enforced_is_off() {
        let notes = Notes::default();
        let at = At::root(&notes);
        let off = WireOutlier {
            enforcing_consecutive_5xx: Some(0),
            ..WireOutlier::default()
        };
        let by_chance = WireOutlier {
            enforcing_consecutive_5xx: Some(50),
            ..WireOutlier::default()
        };

        assert_eq!(
            outlier_detection(&at, &off).expect("valid").consecutive_5xx,
            0
        );
        assert_eq!(
            outlier_detection(&at, &WireOutlier::default()),
            Ok(OutlierDetection::default())
        );
        assert_eq!(
            outlier_detection(&at, &by_chance)
                .expect_err("refused")
                .to_string(),
            "enforcing_consecutive_5xx: 50 is not supported"
        );
    }

    #[test]
    fn ejection_by_success_rate_is_refused_where_it_is_asked_for() {
        let notes = Notes::default();
        let wire = WireOutlier {
            enforcing_success_rate: Some(100),
            ..WireOutlier::default()
        };

        assert!(outlier_detection(&At::root(&notes), &wire).is_err());
    }
}
