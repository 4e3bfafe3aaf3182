//! What protects a service: circuit breakers, retry budget, outlier detection.

use weft_proto::envoy::config::cluster::v3 as cluster;
use weft_proto::envoy::r#type::v3::Percent;
use weft_proto::wkt;

use crate::kinds::backend_traffic_policy::{CircuitBreaker, PassiveHealthCheck};
use crate::kinds::duration::GatewayDuration;
use crate::mesh::policies::Applicable;

/// What Envoy's circuit breakers allow where nothing is said.
const DEFAULT_LIMIT: u32 = 1024;
/// Retries may add that share to the load of a cluster.
const RETRY_BUDGET_PERCENT: f64 = 20.0;
/// And so many are allowed however low the load is.
const MINIMUM_RETRIES: u32 = 3;

/// How much may be in flight; retries by a budget where no number is given.
pub(super) fn circuit_breakers(policy: Option<CircuitBreaker>) -> cluster::CircuitBreakers {
    let limits = policy.unwrap_or_default();
    let budget = cluster::circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(Percent {
            value: RETRY_BUDGET_PERCENT,
        }),
        min_retry_concurrency: Some(MINIMUM_RETRIES),
        ..cluster::circuit_breakers::thresholds::RetryBudget::default()
    };
    let threshold = cluster::circuit_breakers::Thresholds {
        max_connections: Some(limits.max_connections.unwrap_or(DEFAULT_LIMIT)),
        max_pending_requests: Some(limits.max_pending_requests.unwrap_or(DEFAULT_LIMIT)),
        max_requests: Some(limits.max_parallel_requests.unwrap_or(DEFAULT_LIMIT)),
        max_retries: limits.max_parallel_retries,
        retry_budget: limits.max_parallel_retries.is_none().then_some(budget),
        ..cluster::circuit_breakers::Thresholds::default()
    };
    cluster::CircuitBreakers {
        thresholds: vec![threshold],
        ..cluster::CircuitBreakers::default()
    }
}

/// Success rates are never judged: only what the policy names ejects.
pub(super) fn outlier_detection(policy: &PassiveHealthCheck) -> cluster::OutlierDetection {
    let PassiveHealthCheck {
        split_external_local_origin_errors,
        interval,
        consecutive_local_origin_failures,
        consecutive_gateway_errors,
        consecutive_5xx_errors,
        base_ejection_time,
        max_ejection_percent,
    } = *policy;
    let duration =
        |duration: Option<GatewayDuration>| duration.map(|duration| wkt::to_wire(duration.into()));
    let is_on = |count: Option<u32>, default: u32| count.unwrap_or(default) > 0;
    let enforced = |on: bool| Some(if on { 100 } else { 0 });
    let positive = |count: Option<u32>| count.filter(|count| *count > 0);
    cluster::OutlierDetection {
        interval: duration(interval),
        base_ejection_time: duration(base_ejection_time),
        max_ejection_percent,
        consecutive_5xx: positive(consecutive_5xx_errors),
        enforcing_consecutive_5xx: enforced(is_on(consecutive_5xx_errors, 5)),
        consecutive_gateway_failure: positive(consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure: enforced(is_on(consecutive_gateway_errors, 0)),
        split_external_local_origin_errors: split_external_local_origin_errors.unwrap_or(false),
        consecutive_local_origin_failure: positive(consecutive_local_origin_failures),
        enforcing_consecutive_local_origin_failure: enforced(is_on(
            consecutive_local_origin_failures,
            5,
        )),
        enforcing_success_rate: Some(0),
        enforcing_local_origin_success_rate: Some(0),
        ..cluster::OutlierDetection::default()
    }
}

/// Below which share of fit endpoints all are used.
pub(super) fn panic_threshold(
    policies: &Applicable<'_>,
) -> Option<cluster::cluster::CommonLbConfig> {
    let percent = policies.first(|policy| policy.health_check.as_ref()?.panic_threshold)?;
    Some(cluster::cluster::CommonLbConfig {
        healthy_panic_threshold: Some(Percent {
            value: f64::from(percent),
        }),
        ..cluster::cluster::CommonLbConfig::default()
    })
}
