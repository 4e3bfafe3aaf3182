//! Rate limits that a service keeps for all proxies.

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use weft_proto::envoy::config::core::v3::HeaderValue as WireHeader;
use weft_proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use weft_proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride as WireOverride,
};
use weft_proto::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit, rate_limit::Unit,
};
use weft_proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

use super::Passing;
use super::call::{Asked, CallFailure, GrpcMethod};
use super::descriptors::{self, Descriptor, descriptors};
use crate::config::filter::rate_limits::HostRules;
use crate::config::filter::ratelimit::{Origin, RateLimitConfig, RateLimitOverride};
use crate::http::failure::{Failure, LocalReply};
use crate::http::formatting;
use crate::random;
use crate::telemetry::counters::counted;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::explain;

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

counted! {
    /// What is counted of the answers, for the cluster that requests were for.
    struct Stats { ok, over_limit, error, failure_mode_allowed }
}

/// Asks about a request, and refuses what is over a limit.
pub(super) async fn request(
    config: &RateLimitConfig,
    own: Option<&RateLimitOverride>,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    if !is_meant(config.origin, &passing.head.headers) || !config.enabled.covers(random::draw()) {
        return Ok(());
    }
    let descriptors = all_descriptors(config, own, passing);
    if descriptors.is_empty() {
        return Ok(());
    }
    let domain = own
        .map(|own| &*own.domain)
        .filter(|domain| !domain.is_empty());
    let question = RateLimitRequest {
        domain: domain.unwrap_or(&config.domain).to_owned(),
        descriptors: descriptors.into_iter().map(wire).collect(),
        hits_addend: 0,
    };
    let asked = Asked {
        environment: &passing.connection.environment,
        snapshot: &passing.scene.snapshot,
        cluster: &config.service.cluster,
        timeout: config.service.timeout,
    };
    let method = GrpcMethod {
        path: METHOD,
        authority: &config.service.authority,
        metadata: &config.service.metadata,
    };
    let answer = asked.grpc(method, &question).await;
    let stats = stats(config, passing);
    match answer {
        Ok(answer) => answered(config, answer, &stats, passing),
        Err(failure) => unanswered(config, &failure, &stats),
    }
}

/// Counters of the cluster that the request is for; of none where it is for none.
fn stats(config: &RateLimitConfig, passing: &Passing<'_>) -> Stats {
    let cluster = passing
        .destination
        .map_or("", |destination| &*destination.cluster);
    let prefix = super::joined(
        &format!("cluster.{cluster}.ratelimit."),
        &config.stat_prefix,
    );
    Stats::new(&passing.connection.environment.counters, &prefix)
}

fn is_meant(origin: Origin, headers: &HeaderMap) -> bool {
    let is_internal = headers
        .get(INTERNAL)
        .is_some_and(|value| value.as_bytes() == b"true");
    match origin {
        Origin::Both => true,
        Origin::Internal => is_internal,
        Origin::External => !is_internal,
    }
}

fn all_descriptors(
    config: &RateLimitConfig,
    own: Option<&RateLimitOverride>,
    passing: &Passing<'_>,
) -> Vec<Descriptor> {
    if let Some(own) = own.filter(|own| !own.rules.is_empty()) {
        return descriptors(own.rules.iter(), None, passing);
    }
    if !config.rules.is_empty() {
        return descriptors(config.rules.iter(), None, passing);
    }
    let host_rules = own.map_or(HostRules::default(), |own| own.host_rules);
    let limits = passing.overrides().rate_limits();
    descriptors(
        descriptors::of_route(limits, host_rules),
        Some(config.stage),
        passing,
    )
}

fn wire(descriptor: Descriptor) -> RateLimitDescriptor {
    let entries = descriptor.entries.into_iter();
    RateLimitDescriptor {
        entries: entries.map(|(key, value)| Entry { key, value }).collect(),
        limit: descriptor
            .limit
            .map(|(requests_per_unit, unit)| WireOverride {
                requests_per_unit,
                unit,
            }),
        hits_addend: descriptor.hits,
        is_negative_hits: descriptor.is_given_back,
    }
}

fn unanswered(
    config: &RateLimitConfig,
    failure: &CallFailure,
    stats: &Stats,
) -> Result<(), Failure> {
    tracing::debug!(
        error = explain(failure),
        "the rate limit service did not answer"
    );
    stats.error.increment();
    if !config.failure_denies.covers(random::draw()) {
        stats.failure_mode_allowed.increment();
        return Ok(());
    }
    Err(Failure::Answered(Box::new(LocalReply {
        flag: ResponseFlags::RATE_LIMIT_SERVICE_ERROR,
        ..LocalReply::new(config.status_on_error, "rate_limiter_error")
    })))
}

fn answered(
    config: &RateLimitConfig,
    answer: RateLimitResponse,
    stats: &Stats,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    let RateLimitResponse {
        overall_code: _,
        statuses,
        response_headers_to_add,
        request_headers_to_add,
        raw_body,
        dynamic_metadata,
        quota: _,
    } = &answer;
    if let Some(fields) = dynamic_metadata {
        let fields = weft_proto::wkt::struct_to_json(fields);
        passing
            .completion
            .with_metadata(|metadata| metadata.merge(&config.metadata_namespace, fields));
    }
    let mut told = to_headers(response_headers_to_add);
    if config.tells_limits {
        told.extend(limit_headers(statuses));
    }
    let is_over = answer.overall_code() == Code::OverLimit;
    if !is_over || !config.enforced.covers(random::draw()) {
        match is_over {
            true => stats.over_limit.increment(),
            false => stats.ok.increment(),
        }
        for (name, value) in to_headers(request_headers_to_add) {
            passing.head.headers.append(name, value);
        }
        if !told.is_empty() {
            passing.passage.on_response(move |returning| {
                for (name, value) in told {
                    returning.response.headers_mut().append(name, value);
                }
            });
        }
        return Ok(());
    }
    stats.over_limit.increment();
    let mut headers = HeaderMap::new();
    headers.extend(told);
    if let (true, Some(seconds)) = (config.tells_retry_after, retry_after(statuses)) {
        headers.append(http::header::RETRY_AFTER, seconds.into());
    }
    formatting::change_answer(
        &config.response_headers,
        &mut headers,
        passing.head,
        passing.completion,
    );
    if config.marks_refusals {
        headers.insert(RATE_LIMITED, HeaderValue::from_static("true"));
    }
    let grpc_status = match config.is_resource_exhausted {
        true => RESOURCE_EXHAUSTED,
        false => UNAVAILABLE,
    };
    Err(Failure::Answered(Box::new(LocalReply {
        body: raw_body.clone(),
        headers: super::fields(headers),
        grpc_status: passing.completion.is_grpc().then_some(grpc_status),
        flag: ResponseFlags::RATE_LIMITED,
        ..LocalReply::new(config.status, "request_rate_limited")
    })))
}

/// Those that are headers.
fn to_headers(wire: &[WireHeader]) -> Vec<(HeaderName, HeaderValue)> {
    let header = |header: &WireHeader| {
        let bytes = match header.raw_value.is_empty() {
            true => header.value.as_bytes(),
            false => &header.raw_value,
        };
        Some((
            header.key.parse().ok()?,
            HeaderValue::from_bytes(bytes).ok()?,
        ))
    };
    wire.iter().filter_map(header).collect()
}

/// draft-polli-ratelimit-headers-03, as Envoy writes it: of the limit with the least left.
fn limit_headers(statuses: &[DescriptorStatus]) -> Vec<(HeaderName, HeaderValue)> {
    let limited = statuses
        .iter()
        .filter_map(|status| Some((status, status.current_limit.as_ref()?)));
    let Some((least, limit)) = limited
        .clone()
        .min_by_key(|(status, _)| status.limit_remaining)
    else {
        return vec![];
    };
    let quotas: String = limited
        .filter_map(|(_, limit)| Some((limit, window(limit.unit())?)))
        .map(|(limit, seconds)| quota(limit, seconds))
        .collect();
    let reset = until_reset(least);
    let text = |name: &'static str, text: String| {
        Some((
            HeaderName::from_static(name),
            HeaderValue::try_from(text).ok()?,
        ))
    };
    [
        text(
            "x-ratelimit-limit",
            format!("{}{quotas}", limit.requests_per_unit),
        ),
        text("x-ratelimit-remaining", least.limit_remaining.to_string()),
        text("x-ratelimit-reset", reset.to_string()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn until_reset(status: &DescriptorStatus) -> i64 {
    let duration = status.duration_until_reset.as_ref();
    duration.map_or(0, |duration| duration.seconds)
}

/// In how many seconds, at least one, all limits that are exceeded begin anew.
fn retry_after(statuses: &[DescriptorStatus]) -> Option<i64> {
    let exceeded = statuses
        .iter()
        .filter(|status| status.code() == Code::OverLimit);
    exceeded.map(|status| until_reset(status).max(1)).max()
}

fn quota(limit: &RateLimit, seconds: u32) -> String {
    let name = match limit.name.as_str() {
        "" => String::new(),
        name => format!(";name=\"{name}\""),
    };
    format!(", {};w={seconds}{name}", limit.requests_per_unit)
}

fn window(unit: Unit) -> Option<u32> {
    const DAY: u32 = 24 * 60 * 60;
    match unit {
        Unit::Unknown => None,
        Unit::Second => Some(1),
        Unit::Minute => Some(60),
        Unit::Hour => Some(60 * 60),
        Unit::Day => Some(DAY),
        Unit::Week => Some(7 * DAY),
        Unit::Month => Some(30 * DAY),
        Unit::Year => Some(365 * DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(requests_per_unit: u32, limit_remaining: u32) -> DescriptorStatus {
        DescriptorStatus {
            current_limit: Some(RateLimit {
                requests_per_unit,
                unit: Unit::Minute.into(),
                ..RateLimit::default()
            }),
            limit_remaining,
            ..DescriptorStatus::default()
        }
    }

    #[test]
    fn the_limit_with_the_least_left_is_told() {
        let headers = limit_headers(&[status(100, 50), status(10, 3)]);

        let told: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        assert_eq!(
            told,
            [
                ("x-ratelimit-limit", "10, 100;w=60, 10;w=60"),
                ("x-ratelimit-remaining", "3"),
                ("x-ratelimit-reset", "0"),
            ]
        );
    }

    #[test]
    fn who_is_refused_comes_again_when_the_last_exceeded_limit_begins_anew() {
        let over = |code: Code, seconds| DescriptorStatus {
            code: code.into(),
            duration_until_reset: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..DescriptorStatus::default()
        };

        let statuses = [
            over(Code::OverLimit, 7),
            over(Code::OverLimit, 9),
            over(Code::Ok, 100),
        ];
        assert_eq!(retry_after(&statuses), Some(9));
        assert_eq!(retry_after(&[over(Code::OverLimit, 0)]), Some(1));
        assert_eq!(retry_after(&[over(Code::Ok, 7)]), None);
    }

    #[test]
    fn a_service_without_limits_tells_nothing() {
        assert!(limit_headers(&[DescriptorStatus::default()]).is_empty());
    }
}
