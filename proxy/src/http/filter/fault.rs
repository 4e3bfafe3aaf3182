//! Fault injection: holds requests up, answers them with an error, slows their responses down.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use super::Passing;
use super::rate::Paced;
use crate::config::fault::{
    AbortAnswer, DelayDuration, FaultAbort, FaultConfig, FaultDelay, FaultRate, RateLimit,
};
use crate::config::percent::Percent;
use crate::http::completion::Held;
use crate::http::failure::{Failure, LocalReply};
use crate::random;
use crate::telemetry::counters::{Count, counted};
use crate::telemetry::report::ResponseFlags;

const NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");
const DELAY: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request");
const DELAY_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-delay-request-percentage");
const ABORT: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request");
const ABORT_GRPC: HeaderName = HeaderName::from_static("x-envoy-fault-abort-grpc-request");
const ABORT_SHARE: HeaderName = HeaderName::from_static("x-envoy-fault-abort-request-percentage");
const RATE: HeaderName = HeaderName::from_static("x-envoy-fault-throughput-response");
const RATE_SHARE: HeaderName =
    HeaderName::from_static("x-envoy-fault-throughput-response-percentage");

counted! {
    /// What is counted of faults.
    struct Stats { active_faults, aborts_injected, delays_injected, faults_overflow, response_rl_injected }
}

/// A fault that is being injected; counted out when the request is over.
struct ActiveFault(Arc<Count>);

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

impl Held for ActiveFault {}

/// Injects what `own`, the closest configuration, asks for. `chain` is the filter's, which counts.
pub(super) async fn request(
    chain: &FaultConfig,
    own: &FaultConfig,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    if !is_meant(own, passing) {
        return Ok(());
    }
    let stats = chain.live.get_or_init(|| {
        let prefix = format!("http.{}.fault.", passing.stat_prefix());
        Stats::new(&passing.connection.environment.counters, &prefix)
    });
    if let Some(rate) = &own.rate {
        slow_down(rate, own, stats, passing);
    }
    if let Some(delay) = &own.delay
        && let Some(duration) = drawn_delay(delay, &passing.head.headers)
        && begin(own, stats, passing)
    {
        stats.delays_injected.increment();
        passing.completion.flag(ResponseFlags::DELAY_INJECTED);
        tokio::time::sleep(duration).await;
    }
    if let Some(abort) = &own.abort
        && let Some(reply) = drawn_abort(abort, &passing.head.headers)
        && begin(own, stats, passing)
    {
        stats.aborts_injected.increment();
        return Err(Failure::Answered(Box::new(reply)));
    }
    Ok(())
}

fn is_meant(config: &FaultConfig, passing: &Passing<'_>) -> bool {
    let headers = &passing.head.headers;
    let is_to = |wanted: &Arc<str>| {
        let destination = passing.destination;
        destination.is_some_and(|destination| destination.cluster == *wanted)
    };
    let is_from = || {
        let node = headers.get(NODE).map(http::HeaderValue::as_bytes);
        let mut nodes = config.downstream_nodes.iter();
        nodes.any(|wanted| node == Some(wanted.as_bytes()))
    };
    config.upstream_cluster.as_ref().is_none_or(is_to)
        && (config.downstream_nodes.is_empty() || is_from())
        && config
            .headers
            .iter()
            .all(|header| header.is_match(passing.line(), headers))
}

/// Counts a fault in, unless there are as many as may be.
fn begin(config: &FaultConfig, stats: &Stats, passing: &mut Passing<'_>) -> bool {
    let limit = config.max_active.unwrap_or(u64::MAX);
    if !stats.active_faults.increment_below(limit) {
        stats.faults_overflow.increment();
        return false;
    }
    let active = ActiveFault(Arc::clone(&stats.active_faults));
    passing.completion.keep(Box::new(active));
    true
}

fn slow_down(rate: &FaultRate, config: &FaultConfig, stats: &Stats, passing: &mut Passing<'_>) {
    let headers = &passing.head.headers;
    let kibibytes = match rate.limit {
        RateLimit::Fixed(kibibytes) => Some(kibibytes),
        RateLimit::Header => number(headers, &RATE).filter(|number| *number > 0),
    };
    let share = match rate.limit {
        RateLimit::Fixed(_) => rate.percent,
        RateLimit::Header => asked_share(headers, &RATE_SHARE, rate.percent),
    };
    let Some(kibibytes) = kibibytes.filter(|_| share.covers(random::draw())) else {
        return;
    };
    if begin(config, stats, passing) {
        stats.response_rl_injected.increment();
        passing.passage.on_response(move |returning| {
            let body = returning.response.body_mut();
            body.filtered(|inner| Paced::at(inner, kibibytes));
        });
    }
}

fn drawn_delay(config: &FaultDelay, headers: &HeaderMap) -> Option<Duration> {
    let (duration, share) = match config.duration {
        DelayDuration::Fixed(duration) => (duration, config.percent),
        DelayDuration::Header => {
            let duration = Duration::from_millis(number(headers, &DELAY)?);
            (duration, asked_share(headers, &DELAY_SHARE, config.percent))
        }
    };
    (!duration.is_zero() && share.covers(random::draw())).then_some(duration)
}

fn drawn_abort(config: &FaultAbort, headers: &HeaderMap) -> Option<LocalReply> {
    let (status, grpc_status) = match config.answer {
        AbortAnswer::Http(status) => (status, None),
        AbortAnswer::Grpc(status) => (StatusCode::OK, Some(status)),
        AbortAnswer::Header => asked_answer(headers)?,
    };
    let share = match config.answer {
        AbortAnswer::Header => asked_share(headers, &ABORT_SHARE, config.percent),
        _ => config.percent,
    };
    let body = match &config.body {
        Some(body) => Bytes::copy_from_slice(body.as_bytes()),
        None => Bytes::from_static(b"fault filter abort"),
    };
    share.covers(random::draw()).then(|| LocalReply {
        body,
        grpc_status,
        flag: ResponseFlags::FAULT_INJECTED,
        ..LocalReply::new(status, "fault_filter_abort")
    })
}

/// What a request asks to be answered; statuses that are none are not meant so.
fn asked_answer(headers: &HeaderMap) -> Option<(StatusCode, Option<u32>)> {
    let http = number(headers, &ABORT)
        .and_then(|status| u16::try_from(status).ok())
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok());
    let grpc = number(headers, &ABORT_GRPC).and_then(|status| u32::try_from(status).ok());
    match (http, grpc) {
        (Some(status), _) => Some((status, None)),
        (None, Some(status)) => Some((StatusCode::OK, Some(status))),
        (None, None) => None,
    }
}

/// A request may ask for less than is configured, and for no more.
fn asked_share(headers: &HeaderMap, name: &HeaderName, configured: Percent) -> Percent {
    let asked = number(headers, name).map(|percent| Percent::of(percent.try_into().unwrap_or(100)));
    asked.map_or(configured, |asked| asked.min(configured))
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let fields = fields.iter().cloned();
        fields
            .map(|(name, value)| (name, http::HeaderValue::from_static(value)))
            .collect()
    }

    fn abort_as_asked(percent: Percent) -> FaultAbort {
        FaultAbort {
            answer: AbortAnswer::Header,
            percent,
            body: None,
        }
    }

    #[test]
    fn a_request_is_answered_as_it_asks() {
        let config = abort_as_asked(Percent::ALL);
        let answer = |asked: &HeaderMap| {
            let reply = drawn_abort(&config, asked)?;
            Some((reply.status.as_u16(), reply.grpc_status))
        };

        assert_eq!(answer(&headers(&[(ABORT, "503")])), Some((503, None)));
        assert_eq!(answer(&headers(&[(ABORT_GRPC, "7")])), Some((200, Some(7))));
        assert_eq!(answer(&headers(&[(ABORT, "99")])), None);
        assert_eq!(answer(&HeaderMap::new()), None);
    }

    #[test]
    fn a_request_may_ask_for_a_smaller_share_only() {
        let asked = headers(&[(ABORT, "503"), (ABORT_SHARE, "0")]);
        let all = headers(&[(ABORT, "503"), (ABORT_SHARE, "100")]);

        assert!(drawn_abort(&abort_as_asked(Percent::ALL), &asked).is_none());
        assert!(drawn_abort(&abort_as_asked(Percent::ZERO), &all).is_none());
    }

    #[test]
    fn a_delay_of_nothing_is_none() {
        let config = FaultDelay {
            duration: DelayDuration::Header,
            percent: Percent::ALL,
        };

        let delay = drawn_delay(&config, &headers(&[(DELAY, "20")]));

        assert_eq!(delay, Some(Duration::from_millis(20)));
        assert_eq!(drawn_delay(&config, &headers(&[(DELAY, "0")])), None);
        assert_eq!(drawn_delay(&config, &HeaderMap::new()), None);
    }
}
