//! What is wrong with a `BackendTrafficPolicy`: targets, conflicts with others, settings that contradict each other.

use std::sync::Arc;

use serde_json::json;

use super::path::Path;
use super::references;
use crate::kinds::BACKEND_TRAFFIC_POLICY;
use crate::kinds::backend_traffic_policy::{
    BackendTrafficPolicy, BackendTrafficPolicySpec, FaultInjection, LoadBalancerType,
    PassiveHealthCheck, Retry,
};
use crate::kinds::duration::GatewayDuration;
use crate::kinds::reference::TargetKind;
use crate::refusal::Cause;
use crate::store::{Object, Snapshot};

/// All that is wrong with it.
pub(super) fn causes(state: &Snapshot, object: &Object) -> Vec<Cause> {
    let Some(policy) = object.typed::<BackendTrafficPolicy>() else {
        return Vec::new();
    };
    let path = Path::root("spec");
    let spec = &policy.spec;
    let mut causes = references::targets(
        state,
        policy.namespace(),
        &spec.target_refs,
        &path.field("targetRefs"),
    );
    causes.extend(conflicts(state, &policy, &path));
    causes.extend(of_services_only(spec, &path));
    causes.extend(empty(spec, &path));
    causes.extend(load_balancer(spec, &path));
    causes.extend(health(spec, &path));
    if let Some(retry) = &spec.retry {
        causes.extend(retry_causes(spec, retry, &path.field("retry")));
    }
    if let Some(fault) = &spec.fault_injection {
        causes.extend(fault_causes(fault, &path.field("faultInjection")));
    }
    causes
}

fn conflicts(state: &Snapshot, policy: &BackendTrafficPolicy, path: &Path) -> Vec<Cause> {
    let others: Vec<Arc<BackendTrafficPolicy>> = state
        .list(&BACKEND_TRAFFIC_POLICY, Some(policy.namespace()))
        .filter_map(|object| object.typed::<BackendTrafficPolicy>())
        .filter(|other| other.name() != policy.name())
        .collect();
    let list = path.field("targetRefs");
    let mut causes = Vec::new();
    for (index, target) in policy.spec.target_refs.iter().enumerate() {
        let rival = others.iter().find(|other| {
            let mut targets = other.spec.target_refs.iter();
            targets.any(|other| references::is_same(other, target))
        });
        if let Some(rival) = rival {
            causes.push(Cause::duplicate(
                list.index(index),
                &target.name,
                format!(
                    "BackendTrafficPolicy {:?} has this target already; put the settings together in one policy",
                    rival.name()
                ),
            ));
        }
    }
    causes
}

/// Settings of endpoints and connections, which all routes of a service share.
fn of_services_only(spec: &BackendTrafficPolicySpec, path: &Path) -> Vec<Cause> {
    let has_route = spec
        .target_refs
        .iter()
        .any(|target| target.kind == TargetKind::HttpRoute);
    if !has_route {
        return Vec::new();
    }
    let idle = spec
        .timeout
        .and_then(|timeout| timeout.http?.connection_idle_timeout);
    let settings = [
        ("loadBalancer", spec.load_balancer.is_some()),
        ("circuitBreaker", spec.circuit_breaker.is_some()),
        ("healthCheck", spec.health_check.is_some()),
        ("outlierDetection", spec.outlier_detection.is_some()),
        (
            "timeout.tcp",
            spec.timeout.is_some_and(|timeout| timeout.tcp.is_some()),
        ),
        ("timeout.http.connectionIdleTimeout", idle.is_some()),
    ];
    settings
        .into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(setting, _)| {
            Cause::forbidden(
                format!("{path}.{setting}"),
                "belongs to a Service, not to an HTTPRoute: put it in a policy with the Service as its target",
            )
        })
        .collect()
}

fn empty(spec: &BackendTrafficPolicySpec, path: &Path) -> Option<Cause> {
    let BackendTrafficPolicySpec {
        target_refs: _,
        load_balancer,
        circuit_breaker,
        health_check,
        outlier_detection,
        timeout,
        retry,
        fault_injection,
    } = spec;
    let is_empty = load_balancer.is_none()
        && circuit_breaker.is_none()
        && health_check.is_none()
        && outlier_detection.is_none()
        && timeout.is_none()
        && retry.is_none()
        && fault_injection.is_none();
    is_empty.then(|| {
        Cause::required(
            path,
            "at least one of loadBalancer, circuitBreaker, healthCheck, outlierDetection, timeout, retry, faultInjection",
        )
    })
}

fn load_balancer(spec: &BackendTrafficPolicySpec, path: &Path) -> Vec<Cause> {
    let Some(balancer) = &spec.load_balancer else {
        return Vec::new();
    };
    let Some(slow_start) = balancer.slow_start else {
        return Vec::new();
    };
    let path = path.field("loadBalancer").field("slowStart");
    let mut causes = Vec::new();
    if balancer.kind == LoadBalancerType::Random {
        causes.push(Cause::forbidden(&path, "Random knows no slow start"));
    }
    causes.extend(not_zero(slow_start.window, &path.field("window")));
    causes
}

fn not_zero(duration: GatewayDuration, path: &Path) -> Option<Cause> {
    duration
        .is_zero()
        .then(|| Cause::invalid(path, &json!(duration), "must be longer than 0s"))
}

fn health(spec: &BackendTrafficPolicySpec, path: &Path) -> Vec<Cause> {
    let health_path = path.field("healthCheck").field("passive");
    let passive = spec
        .health_check
        .as_ref()
        .and_then(|health| health.passive.as_ref());
    let mut causes = Vec::new();
    if spec.outlier_detection.is_some() && passive.is_some() {
        causes.push(Cause::forbidden(
            path.field("outlierDetection"),
            "is the same as healthCheck.passive: write one of them",
        ));
    }
    if let Some(passive) = passive {
        causes.extend(passive_causes(passive, &health_path));
    }
    if let Some(passive) = &spec.outlier_detection {
        causes.extend(passive_causes(passive, &path.field("outlierDetection")));
    }
    causes
}

fn passive_causes(passive: &PassiveHealthCheck, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(interval) = passive.interval {
        causes.extend(not_zero(interval, &path.field("interval")));
    }
    if let Some(time) = passive.base_ejection_time {
        causes.extend(not_zero(time, &path.field("baseEjectionTime")));
    }
    if passive.consecutive_local_origin_failures.is_some()
        && passive.split_external_local_origin_errors != Some(true)
    {
        causes.push(Cause::forbidden(
            path.field("consecutiveLocalOriginFailures"),
            "needs splitExternalLocalOriginErrors: true",
        ));
    }
    causes
}

fn retry_causes(spec: &BackendTrafficPolicySpec, retry: &Retry, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    let codes = retry.retry_on.iter().flat_map(|on| &on.http_status_codes);
    let list = path.field("retryOn").field("httpStatusCodes");
    for (index, code) in codes
        .enumerate()
        .filter(|(_, code)| !(100..=599).contains(*code))
    {
        causes.push(Cause::invalid(
            list.index(index),
            &json!(code),
            "must be between 100 and 599",
        ));
    }
    if let Some(on) = &retry.retry_on
        && on.triggers.is_empty()
        && on.http_status_codes.is_empty()
    {
        causes.push(Cause::required(
            path.field("retryOn"),
            "triggers or httpStatusCodes; leave retryOn out for the default",
        ));
    }
    let Some(per_retry) = &retry.per_retry else {
        return causes;
    };
    let path = path.field("perRetry");
    let whole = spec
        .timeout
        .and_then(|timeout| timeout.http?.request_timeout);
    if let (Some(attempt), Some(whole)) = (per_retry.timeout, whole)
        && !whole.is_zero()
        && attempt > whole
    {
        causes.push(Cause::invalid(
            path.field("timeout"),
            &json!(attempt),
            format!("must not be longer than timeout.http.requestTimeout, {whole}"),
        ));
    }
    if let Some(back_off) = per_retry.back_off {
        let path = path.field("backOff");
        causes.extend(not_zero(
            back_off.base_interval,
            &path.field("baseInterval"),
        ));
        if let Some(longest) = back_off
            .max_interval
            .filter(|it| *it < back_off.base_interval)
        {
            causes.push(Cause::invalid(
                path.field("maxInterval"),
                &json!(longest),
                format!(
                    "must not be shorter than baseInterval, {}",
                    back_off.base_interval
                ),
            ));
        }
    }
    causes
}

fn fault_causes(fault: &FaultInjection, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    if fault.delay.is_none() && fault.abort.is_none() {
        causes.push(Cause::required(path, "delay or abort"));
    }
    if let Some(delay) = fault.delay {
        causes.extend(not_zero(
            delay.fixed_delay,
            &path.field("delay").field("fixedDelay"),
        ));
    }
    if let Some(abort) = fault.abort {
        let path = path.field("abort");
        match (abort.http_status, abort.grpc_status) {
            (None, None) => causes.push(Cause::required(path, "httpStatus or grpcStatus")),
            (Some(_), Some(_)) => causes.push(Cause::forbidden(
                path.field("grpcStatus"),
                "httpStatus is given already; only one of them can be the answer",
            )),
            _ => {}
        }
    }
    causes
}
