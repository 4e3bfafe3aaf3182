//! Rate limits that the proxy keeps itself.
//!
//! The buckets of the descriptors that a request has are asked first, then the default one. With a limit for each
//! connection, a connection keeps its buckets for as long as it lives.

mod buckets;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use self::buckets::{Asked, Buckets};
use super::Passing;
use super::descriptors::{self, descriptors};
use crate::config::filter::local_ratelimit::LocalRateLimitConfig;
use crate::http::failure::{Failure, LocalReply};
use crate::http::formatting;
use crate::random;
use crate::telemetry::counters::counted;
use crate::telemetry::report::ResponseFlags;
use crate::token_bucket::TokenBucket;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

counted! {
    /// What is counted of a limit.
    struct Stats { enabled, enforced, ok, rate_limited }
}

/// What lives of a limit.
struct State {
    stats: Stats,
    buckets: Arc<Buckets>,
}

/// Counts a request against its limits, and refuses what is over one.
pub(super) fn request(
    config: &LocalRateLimitConfig,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    let now = Instant::now();
    if !config.enabled.covers(random::draw()) {
        return Ok(());
    }
    let state = config.live.get_or_init(|| {
        let prefix = format!("{}.http_local_rate_limit.", config.stat_prefix);
        State {
            stats: Stats::new(&passing.connection.environment.counters, &prefix),
            buckets: Arc::new(Buckets::new(config, now)),
        }
    });
    state.stats.enabled.increment();
    let asked = asked(config, state, passing, now);
    if config.tells_limits {
        tell_limits(&asked, passing, now);
    }
    if asked.is_allowed {
        state.stats.ok.increment();
        return Ok(());
    }
    state.stats.rate_limited.increment();
    if !config.enforced.covers(random::draw()) {
        formatting::change_request(&config.request_headers, passing.head, passing.completion);
        return Ok(());
    }
    state.stats.enforced.increment();
    Err(refusal(config, &asked, passing, now))
}

fn asked(
    config: &LocalRateLimitConfig,
    state: &State,
    passing: &Passing<'_>,
    now: Instant,
) -> Asked {
    let descriptors = if config.descriptors.is_empty() {
        vec![]
    } else if config.rules.is_empty() {
        let limits = passing.overrides().rate_limits();
        let rules = descriptors::of_route(limits, config.host_rules);
        descriptors(rules, Some(config.stage), passing)
    } else {
        descriptors(config.rules.iter(), None, passing)
    };
    if config.per_connection {
        let make = || Buckets::new(config, now);
        let own = passing.connection.kept(&state.buckets, make);
        return own.ask(config, &descriptors, now);
    }
    state.buckets.ask(config, &descriptors, now)
}

fn tell_limits(asked: &Asked, passing: &mut Passing<'_>, now: Instant) {
    let Some(bucket) = &asked.bucket else { return };
    let whole = |number: f64| HeaderValue::from(buckets::whole(number));
    let limit = whole(bucket.max());
    let remaining = whole(bucket.left(now));
    let reset = HeaderValue::from(seconds_to_next(bucket, now));
    passing.passage.on_response(move |returning| {
        let headers = returning.response.headers_mut();
        headers.insert(LIMIT, limit);
        headers.insert(REMAINING, remaining);
        headers.insert(RESET, reset);
    });
}

/// In how many seconds there will be a token; 0 where there is one.
fn seconds_to_next(bucket: &TokenBucket, now: Instant) -> u64 {
    buckets::whole(bucket.next(now).as_secs_f64().ceil())
}

fn refusal(
    config: &LocalRateLimitConfig,
    asked: &Asked,
    passing: &Passing<'_>,
    now: Instant,
) -> Failure {
    let grpc_status = match config.is_resource_exhausted {
        true => RESOURCE_EXHAUSTED,
        false => UNAVAILABLE,
    };
    let mut headers = http::HeaderMap::new();
    formatting::change_answer(
        &config.response_headers,
        &mut headers,
        passing.head,
        passing.completion,
    );
    if let (true, Some(bucket)) = (config.tells_retry_after, &asked.bucket) {
        let seconds = seconds_to_next(bucket, now);
        headers.insert(http::header::RETRY_AFTER, seconds.into());
    }
    Failure::Answered(Box::new(LocalReply {
        body: Bytes::from_static(b"local_rate_limited"),
        headers: super::fields(headers),
        grpc_status: passing.completion.is_grpc().then_some(grpc_status),
        flag: ResponseFlags::RATE_LIMITED,
        ..LocalReply::new(config.status, "local_rate_limited")
    }))
}
