//! Circuit breakers and outlier detection of a cluster.

use weft_proto::envoy::config::cluster::v3::circuit_breakers::Thresholds as WireThresholds;
use weft_proto::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use weft_proto::envoy::config::cluster::v3::{CircuitBreakers, OutlierDetection as WireOutlier};
use weft_proto::envoy::config::core::v3::RoutingPriority;

use super::at::{At, Invalid, duration, enumeration, harmless, unsupported};
use super::share::percent;
use crate::config::cluster::outlier::{
    Enforcing, FailurePercentageTest, OutlierDetection, SuccessRateTest,
};
use crate::config::cluster::{RetryLimit, Thresholds};
use crate::config::percent::Percent;

/// Envoy's share of active requests that may be retries, where a budget doesn't say.
const DEFAULT_BUDGET_PERCENT: u32 = 20;
/// Envoy's: so many retries in any case.
const DEFAULT_MIN_RETRIES: u32 = 3;
/// Envoy's: a test of failures in a row is acted upon always.
const ALWAYS: u32 = 100;

/// What may be in flight, by priority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) usual: Thresholds,
    pub(super) urgent: Thresholds,
    pub(super) per_endpoint: Option<u32>,
}

/// What may be in flight. Of several thresholds of one priority the first counts, as in Envoy.
pub(super) fn thresholds(at: &At<'_>, wire: Option<&CircuitBreakers>) -> Result<Limits, Invalid> {
    let Some(wire) = wire else {
        return Ok(Limits::default());
    };
    let CircuitBreakers {
        thresholds,
        per_host_thresholds,
    } = wire;
    let per_endpoint = per_endpoint(&at.field("per_host_thresholds"), per_host_thresholds)?;
    let at = at.field("thresholds");
    let (mut usual, mut urgent) = (None, None);
    for (index, wire) in thresholds.iter().enumerate() {
        let at = at.index(index);
        let found = of_priority(&at, wire)?;
        let place = match enumeration(&at.field("priority"), wire.priority)? {
            RoutingPriority::Default => &mut usual,
            RoutingPriority::High => &mut urgent,
        };
        place.get_or_insert(found);
    }
    Ok(Limits {
        usual: usual.unwrap_or_default(),
        urgent: urgent.unwrap_or_default(),
        per_endpoint,
    })
}

/// How many connections each endpoint may have. As in Envoy, that is all that can be limited by endpoint;
/// connections count as those of the default priority.
fn per_endpoint(at: &At<'_>, wire: &[WireThresholds]) -> Result<Option<u32>, Invalid> {
    let mut found = None;
    for (index, wire) in wire.iter().enumerate() {
        let at = at.index(index);
        let WireThresholds {
            priority,
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            retry_budget,
            track_remaining,
            max_connection_pools,
        } = wire;
        unsupported!(at; max_pending_requests, max_requests, max_retries, retry_budget,
            track_remaining, max_connection_pools);
        match enumeration(&at.field("priority"), *priority)? {
            // Envoy: what a threshold doesn't say is unlimited.
            RoutingPriority::Default => {
                found.get_or_insert(max_connections.unwrap_or(u32::MAX));
            }
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
    harmless!(at; max_connection_pools);
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
        tracks_remaining: *track_remaining,
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

/// When an endpoint is taken out.
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
    unsupported!(at; monitors);
    let default = OutlierDetection::default();
    let share = |name: &'static str, wire: Option<u32>, default: u32| {
        let percent = wire.unwrap_or(default);
        match percent <= 100 {
            true => Ok(Percent::of(percent)),
            false => Err(at
                .field(name)
                .refuse(format_args!("{percent} is more than 100"))),
        }
    };
    let base = duration(&at.field("base_ejection_time"), base_ejection_time.as_ref())?
        .unwrap_or(default.base_ejection_time);
    Ok(OutlierDetection {
        consecutive_5xx: consecutive_5xx.unwrap_or(default.consecutive_5xx),
        consecutive_gateway_failure: consecutive_gateway_failure.unwrap_or(5),
        consecutive_local_origin_failure: consecutive_local_origin_failure
            .unwrap_or(default.consecutive_local_origin_failure),
        split_local_origin: *split_external_local_origin_errors,
        interval: duration(&at.field("interval"), interval.as_ref())?.unwrap_or(default.interval),
        base_ejection_time: base,
        max_ejection_time: duration(&at.field("max_ejection_time"), max_ejection_time.as_ref())?
            .unwrap_or(default.max_ejection_time)
            .max(base),
        max_ejection_jitter: duration(
            &at.field("max_ejection_time_jitter"),
            max_ejection_time_jitter.as_ref(),
        )?
        .unwrap_or_default(),
        max_ejection_percent: share("max_ejection_percent", *max_ejection_percent, 10)?,
        always_ejects_one: always_eject_one_host.unwrap_or(default.always_ejects_one),
        detects_degraded: detect_degraded_hosts.unwrap_or(false),
        is_ended_by_health_check: successful_active_health_check_uneject_host.unwrap_or(true),
        enforcing: Enforcing {
            consecutive_5xx: share(
                "enforcing_consecutive_5xx",
                *enforcing_consecutive_5xx,
                ALWAYS,
            )?,
            gateway_failure: share(
                "enforcing_consecutive_gateway_failure",
                *enforcing_consecutive_gateway_failure,
                0,
            )?,
            local_origin_failure: share(
                "enforcing_consecutive_local_origin_failure",
                *enforcing_consecutive_local_origin_failure,
                ALWAYS,
            )?,
            success_rate: share("enforcing_success_rate", *enforcing_success_rate, ALWAYS)?,
            local_success_rate: share(
                "enforcing_local_origin_success_rate",
                *enforcing_local_origin_success_rate,
                ALWAYS,
            )?,
            failure_percentage: share(
                "enforcing_failure_percentage",
                *enforcing_failure_percentage,
                0,
            )?,
            local_failure_percentage: share(
                "enforcing_failure_percentage_local_origin",
                *enforcing_failure_percentage_local_origin,
                0,
            )?,
        },
        success_rate: SuccessRateTest {
            minimum_hosts: success_rate_minimum_hosts.unwrap_or(5),
            request_volume: success_rate_request_volume.unwrap_or(100),
            deviation_thousandths: success_rate_stdev_factor.unwrap_or(1900),
        },
        failure_percentage: FailurePercentageTest {
            threshold: share(
                "failure_percentage_threshold",
                *failure_percentage_threshold,
                85,
            )?,
            minimum_hosts: failure_percentage_minimum_hosts.unwrap_or(5),
            request_volume: failure_percentage_request_volume.unwrap_or(50),
        },
    })
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

        assert_eq!(found.usual.max_requests, 7);
        assert_eq!(found.usual.max_connections, 1024);
        assert_eq!(
            found.usual.retries,
            RetryLimit::Budget {
                share: Percent::of(25),
                min_concurrency: 3
            }
        );
    }

    #[test]
    fn each_priority_has_limits_of_its_own() {
        let notes = Notes::default();
        let limited = |priority: RoutingPriority, max_requests| WireThresholds {
            priority: priority.into(),
            max_requests: Some(max_requests),
            ..WireThresholds::default()
        };
        let wire = CircuitBreakers {
            thresholds: vec![
                limited(RoutingPriority::High, 9),
                limited(RoutingPriority::Default, 1),
                limited(RoutingPriority::Default, 2),
            ],
            ..CircuitBreakers::default()
        };

        let found = thresholds(&At::root(&notes), Some(&wire)).expect("valid");

        assert_eq!(
            (found.usual.max_requests, found.urgent.max_requests),
            (1, 9)
        );
    }

    #[test]
    fn envoys_defaults_hold_where_nothing_is_said() {
        let notes = Notes::default();

        let found = outlier_detection(&At::root(&notes), &WireOutlier::default()).expect("valid");

        assert_eq!(found.consecutive_5xx, 5);
        assert_eq!(found.enforcing.consecutive_5xx, Percent::ALL);
        assert_eq!(found.enforcing.gateway_failure, Percent::ZERO);
        assert_eq!(found.enforcing.success_rate, Percent::ALL);
        assert_eq!(found.enforcing.failure_percentage, Percent::ZERO);
        assert_eq!(found.max_ejection_percent, Percent::of(10));
    }

    #[test]
    fn a_test_is_enforced_as_often_as_it_says_and_no_more_than_always() {
        let notes = Notes::default();
        let enforcing = |percent| WireOutlier {
            enforcing_consecutive_5xx: Some(percent),
            ..WireOutlier::default()
        };
        let found = |percent| outlier_detection(&At::root(&notes), &enforcing(percent));

        let half = found(50).expect("valid");
        assert_eq!(half.enforcing.consecutive_5xx, Percent::of(50));
        let error = found(101).expect_err("refused").to_string();
        assert_eq!(error, "enforcing_consecutive_5xx: 101 is more than 100");
    }
}
