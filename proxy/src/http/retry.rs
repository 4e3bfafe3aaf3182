//! Whether a request is tried again, and when. Pure: the facts come in, the decision goes out.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use rand::Rng;

use super::failure::{Failure, Reset};
use crate::config::matching::RequestLine;
use crate::config::retry::{AskedBackOff, BackOff, ResetFormat, RetryConditions};
use crate::upstream::ConnectFailure;
use crate::{present, random};

/// Another proxy's rate limit has refused the request: it is not asked again unless the policy says so.
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// How a try ended, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TryEnd<'a> {
    /// With a response.
    Response { status: u16, headers: &'a HeaderMap },
    /// There was no connection.
    NotConnected,
    /// The request was not sent.
    NotSent,
    /// The peer refused to look at it.
    Refused,
    /// It was sent, and nothing came back.
    Lost,
    /// It took too long.
    TimedOut,
    /// Nothing that another try would change.
    Final,
}

impl TryEnd<'_> {
    /// That of a failure.
    pub(super) fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Connect {
                source: ConnectFailure::Overflow(_),
                ..
            } => TryEnd::Final,
            Failure::Connect { .. } => TryEnd::NotConnected,
            Failure::Reset { how, .. } => match how {
                Reset::BeforeRequest => TryEnd::NotSent,
                Reset::Refused => TryEnd::Refused,
                Reset::Stream | Reset::Connection | Reset::Protocol => TryEnd::Lost,
            },
            Failure::Malformed { .. } => TryEnd::Lost,
            Failure::PerTryTimeout { .. } | Failure::PerTryIdle { .. } => TryEnd::TimedOut,
            _ => TryEnd::Final,
        }
    }
}

/// Whether the conditions ask for another try.
pub(super) fn is_retried(on: &RetryConditions, end: TryEnd<'_>, is_idempotent: bool) -> bool {
    let on_any_reset = on.reset
        || on.server_error
        || on.gateway_error
        || (on.reset_if_idempotent && is_idempotent);
    match end {
        TryEnd::Response { status, headers } => is_retried_response(on, status, headers),
        TryEnd::NotConnected => on.connect_failure || on_any_reset,
        TryEnd::NotSent => on.reset_before_request || on.connect_failure || on_any_reset,
        TryEnd::Refused => on.refused_stream || on_any_reset,
        TryEnd::Lost | TryEnd::TimedOut => on_any_reset,
        TryEnd::Final => false,
    }
}

fn is_retried_response(on: &RetryConditions, status: u16, headers: &HeaderMap) -> bool {
    let grpc_status = || {
        present::value(headers, &GRPC_STATUS)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    };
    let is_asked_for = (on.server_error && status >= 500)
        || (on.gateway_error && matches!(status, 502..=504))
        || (on.retriable_4xx && status == 409)
        || on.status_codes.contains(&status)
        || on
            .headers
            .iter()
            .any(|wanted| wanted.is_match(NO_LINE, headers))
        || (!on.grpc_statuses.is_empty()
            && grpc_status().is_some_and(|status| on.grpc_statuses.contains(&status)));
    // Of a rate limit nothing else decides; most responses are not asked whether it is one.
    match on.rate_limited {
        true => is_asked_for || present::has(headers, &RATE_LIMITED),
        false => is_asked_for && !present::has(headers, &RATE_LIMITED),
    }
}

/// A response has none.
const NO_LINE: RequestLine<'static> = RequestLine {
    method: "",
    path: "",
    authority: "",
    scheme: "",
};

/// Whether a request may have to be sent again after it was sent: then a copy of it must be kept.
pub(super) fn may_resend(on: &RetryConditions, is_idempotent: bool, is_http2: bool) -> bool {
    on.reset
        || on.server_error
        || on.gateway_error
        || on.retriable_4xx
        || !on.status_codes.is_empty()
        || !on.grpc_statuses.is_empty()
        || !on.headers.is_empty()
        || on.rate_limited
        || (on.reset_if_idempotent && is_idempotent)
        || (on.refused_stream && is_http2)
}

/// RFC 9110 §9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// How long to wait before the n-th retry, counted from 0.
pub(super) fn wait(back_off: BackOff, retry: u32, random: &mut impl Rng) -> Duration {
    let factor = 1_u32.checked_shl(retry).unwrap_or(u32::MAX);
    let longest = back_off
        .base
        .saturating_mul(factor)
        .min(back_off.max.max(back_off.base));
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random::below(random, nanos))
}

/// How long the upstream asks to wait, between that and half as long again: so that not all come back at once.
/// `now` is since 1970.
pub(super) fn asked_wait(
    config: &AskedBackOff,
    headers: &HeaderMap,
    now: Duration,
    random: &mut impl Rng,
) -> Option<Duration> {
    let asked = config.headers.iter().find_map(|header| {
        let value = headers.get(&header.name)?.to_str().ok()?;
        let seconds = Duration::from_secs(value.parse().ok()?);
        let asked = match header.format {
            ResetFormat::Seconds => seconds,
            ResetFormat::UnixTimestamp => seconds.checked_sub(now)?,
        };
        (asked <= config.max).then_some(asked)
    });
    let asked = asked.filter(|asked| asked.as_millis() > 1)?;
    let half = u64::try_from(asked.as_nanos() / 2).unwrap_or(u64::MAX);
    Some(asked.saturating_add(Duration::from_nanos(random::below(random, half))))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn default_policy() -> RetryConditions {
        RetryConditions {
            connect_failure: true,
            refused_stream: true,
            reset_before_request: true,
            reset_if_idempotent: true,
            ..RetryConditions::default()
        }
    }

    static NO_HEADERS: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);

    fn response(status: u16) -> TryEnd<'static> {
        TryEnd::Response {
            status,
            headers: &NO_HEADERS,
        }
    }

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        let name = HeaderName::from_static(name);
        HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))])
    }

    #[test]
    fn the_default_policy_repeats_only_what_cannot_have_been_processed_or_is_idempotent() {
        let on = default_policy();

        for end in [TryEnd::NotConnected, TryEnd::NotSent, TryEnd::Refused] {
            assert!(is_retried(&on, end, false), "{end:?}");
        }
        assert!(is_retried(&on, TryEnd::Lost, true));
        assert!(!is_retried(&on, TryEnd::Lost, false));
        assert!(!is_retried(&on, response(503), true));
        assert!(!is_retried(&on, TryEnd::Final, true));
    }

    #[test]
    fn a_response_is_retried_by_its_status() {
        let gateway = RetryConditions {
            gateway_error: true,
            status_codes: vec![429],
            ..RetryConditions::default()
        };

        assert!(is_retried(&gateway, response(503), false));
        assert!(is_retried(&gateway, response(429), false));
        assert!(!is_retried(&gateway, response(500), false));
    }

    #[test]
    fn a_grpc_status_in_the_headers_is_retried_where_named() {
        let on = RetryConditions {
            grpc_statuses: vec![14],
            ..RetryConditions::default()
        };
        let is_retried = |headers: &HeaderMap| {
            let end = TryEnd::Response {
                status: 200,
                headers,
            };
            is_retried(&on, end, false)
        };

        assert!(is_retried(&headers("grpc-status", "14")));
        assert!(!is_retried(&headers("grpc-status", "0")));
        assert!(!is_retried(&HeaderMap::new()));
    }

    #[test]
    fn a_rate_limited_response_is_retried_only_where_asked() {
        let headers = headers("x-envoy-ratelimited", "true");
        let end = TryEnd::Response {
            status: 503,
            headers: &headers,
        };
        let mut on = RetryConditions {
            server_error: true,
            ..RetryConditions::default()
        };

        assert!(!is_retried(&on, end, true));
        on.rate_limited = true;
        assert!(is_retried(&on, end, true));
    }

    #[test]
    fn a_header_makes_a_response_worth_another_try() {
        use crate::config::matching::{HeaderMatch, HeaderTest, Subject};
        let on = RetryConditions {
            headers: vec![HeaderMatch {
                subject: Subject::Header(HeaderName::from_static("x-again")),
                test: HeaderTest::Present,
                invert: false,
                missing_is_empty: false,
            }],
            ..RetryConditions::default()
        };
        let headers = headers("x-again", "1");
        let with = TryEnd::Response {
            status: 200,
            headers: &headers,
        };

        assert!(is_retried(&on, with, false));
        assert!(!is_retried(&on, response(200), false));
    }

    #[test]
    fn the_upstream_says_how_long_to_wait() {
        use crate::config::retry::ResetHeader;
        let config = AskedBackOff {
            headers: vec![
                ResetHeader {
                    name: HeaderName::from_static("retry-after"),
                    format: ResetFormat::Seconds,
                },
                ResetHeader {
                    name: HeaderName::from_static("x-reset"),
                    format: ResetFormat::UnixTimestamp,
                },
            ],
            max: Duration::from_secs(60),
        };
        let mut random = SmallRng::seed_from_u64(5);
        let mut wait = |name, value| {
            let now = Duration::from_secs(1000);
            let wait = asked_wait(&config, &headers(name, value), now, &mut random)?;
            Some(wait.as_secs())
        };

        assert!((4..6).contains(&wait("retry-after", "4").expect("a wait")));
        assert!((8..12).contains(&wait("x-reset", "1008").expect("a wait")));
        assert_eq!(wait("x-reset", "900"), None);
        assert_eq!(wait("retry-after", "61"), None);
        assert_eq!(wait("retry-after", "soon"), None);
        assert_eq!(wait("other", "1"), None);
    }

    #[test]
    fn a_copy_is_kept_only_where_it_can_be_needed() {
        let on = default_policy();

        assert!(may_resend(&on, true, false));
        assert!(!may_resend(&on, false, false));
        assert!(may_resend(&on, false, true));
    }

    #[test]
    fn waits_are_random_and_grow_up_to_the_longest() {
        let mut random = SmallRng::seed_from_u64(5);
        let back_off = BackOff::default();
        let mut longest = |retry| {
            let waits = (0..2000).map(|_| wait(back_off, retry, &mut random));
            waits.max().expect("some")
        };

        assert!((20..25).contains(&longest(0).as_millis()));
        assert!((90..100).contains(&longest(2).as_millis()));
        assert!((230..250).contains(&longest(31).as_millis()));
        assert!((230..250).contains(&longest(64).as_millis()));
    }
}
