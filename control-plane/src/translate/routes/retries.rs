//! What is tried again: the mesh's safe default, or what a policy or route says.

use std::time::Duration;

use weft_proto::envoy::config::route::v3 as route;
use weft_proto::wkt;

use crate::kinds::backend_traffic_policy::{BackOff, Retry, RetryTrigger};
use crate::kinds::duration::GatewayDuration;
use crate::kinds::http_route::HttpRouteRetry;
use crate::translate::wire;

/// Only what cannot have been processed, or what is idempotent. `reset-if-idempotent` is weft's own word.
const SAFE: &str = "connect-failure,refused-stream,reset-before-request,reset-if-idempotent";
const STATUS_CODES: &str = "retriable-status-codes";
const DEFAULT_RETRIES: u32 = 2;
/// How often another endpoint than the ones before is looked for.
const OTHER_HOST_ATTEMPTS: i64 = 3;

/// The retries of a route: its own word, else the most specific policy's, else the default.
pub(super) fn of(
    of_rule: Option<&HttpRouteRetry>,
    of_policy: Option<&Retry>,
    attempt_timeout: Option<GatewayDuration>,
) -> Option<route::RetryPolicy> {
    let mut policy = match (of_rule, of_policy) {
        (Some(rule), _) => by_rule(rule),
        (None, Some(policy)) => by_policy(policy),
        (None, None) => safe(DEFAULT_RETRIES),
    };
    if let Some(timeout) = attempt_timeout {
        policy.per_try_timeout = limit(timeout);
    }
    // Without retries a policy may still say how long the one attempt may take.
    let says_nothing = policy.num_retries == Some(0) && policy.per_try_timeout.is_none();
    (!says_nothing).then_some(policy)
}

fn safe(retries: u32) -> route::RetryPolicy {
    route::RetryPolicy {
        retry_on: SAFE.to_owned(),
        num_retries: Some(retries),
        retry_host_predicate: vec![previous_hosts()],
        host_selection_retry_max_attempts: OTHER_HOST_ATTEMPTS,
        ..route::RetryPolicy::default()
    }
}

/// Status codes come on top of what is safe.
fn by_rule(rule: &HttpRouteRetry) -> route::RetryPolicy {
    let HttpRouteRetry {
        codes,
        attempts,
        backoff,
    } = rule;
    let mut policy = safe(attempts.unwrap_or(DEFAULT_RETRIES));
    if !codes.is_empty() {
        policy.retry_on = format!("{SAFE},{STATUS_CODES}");
        policy.retriable_status_codes = codes.iter().copied().map(u32::from).collect();
    }
    policy.retry_back_off = backoff
        .filter(|base| !base.is_zero())
        .map(|base| back_off(base, None));
    policy
}

fn by_policy(policy: &Retry) -> route::RetryPolicy {
    let Retry {
        num_retries,
        retry_on,
        per_retry,
    } = policy;
    let mut translated = safe(num_retries.unwrap_or(DEFAULT_RETRIES));
    if let Some(on) = retry_on {
        translated.retriable_status_codes = on
            .http_status_codes
            .iter()
            .copied()
            .map(u32::from)
            .collect();
        translated.retry_on = words(&on.triggers, !on.http_status_codes.is_empty());
    }
    if let Some(each) = per_retry {
        translated.per_try_timeout = each.timeout.and_then(limit);
        translated.retry_back_off = each.back_off.map(
            |BackOff {
                 base_interval,
                 max_interval,
             }| { back_off(base_interval, max_interval) },
        );
    }
    translated
}

fn words(triggers: &[RetryTrigger], has_codes: bool) -> String {
    let mut words: Vec<_> = triggers.iter().map(|trigger| trigger.as_str()).collect();
    if has_codes && !words.contains(&STATUS_CODES) {
        words.push(STATUS_CODES);
    }
    match words.is_empty() {
        true => SAFE.to_owned(),
        false => words.join(","),
    }
}

fn back_off(
    base: GatewayDuration,
    max: Option<GatewayDuration>,
) -> route::retry_policy::RetryBackOff {
    route::retry_policy::RetryBackOff {
        base_interval: Some(wkt::to_wire(base.get().max(Duration::from_millis(1)))),
        // Envoy refuses a maximum below the base.
        max_interval: max.map(|max| wkt::to_wire(max.get().max(base.get()))),
    }
}

/// Zero means "no limit", which is Envoy's nothing.
fn limit(timeout: GatewayDuration) -> Option<prost_types::Duration> {
    (!timeout.is_zero()).then(|| wkt::to_wire(timeout.get()))
}

fn previous_hosts() -> route::retry_policy::RetryHostPredicate {
    let predicate = wire::empty_extension(
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    );
    route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(
            route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(predicate),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(json: serde_json::Value) -> Retry {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn without_a_policy_only_what_is_safe_is_retried() {
        let retries = of(None, None, None).unwrap();

        assert_eq!(retries.retry_on, SAFE);
        assert_eq!(retries.num_retries, Some(2));
        assert_eq!(retries.retry_host_predicate.len(), 1);
    }

    #[test]
    fn zero_retries_is_no_retry_policy() {
        let never = policy(json!({"numRetries": 0}));

        assert_eq!(of(None, Some(&never), None), None);
    }

    #[test]
    fn a_rule_goes_before_a_policy() {
        let rule: HttpRouteRetry =
            serde_json::from_value(json!({"codes": [503], "attempts": 5})).unwrap();
        let other = policy(json!({"numRetries": 1}));

        let retries = of(Some(&rule), Some(&other), None).unwrap();

        assert_eq!(retries.num_retries, Some(5));
        assert_eq!(retries.retriable_status_codes, [503]);
        assert!(retries.retry_on.ends_with(",retriable-status-codes"));
    }

    #[test]
    fn status_codes_of_a_policy_imply_their_trigger() {
        let codes = policy(json!({"retryOn": {"triggers": ["5xx"], "httpStatusCodes": [429]}}));

        let retries = of(None, Some(&codes), None).unwrap();

        assert_eq!(retries.retry_on, "5xx,retriable-status-codes");
    }
}
