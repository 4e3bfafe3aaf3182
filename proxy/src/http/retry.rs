//! Whether a request is tried again, and when. Pure: the facts come in, the decision goes out.

use std::time::Duration;

use http::Method;
use rand::Rng;

use super::failure::{Failure, Reset};
use crate::cluster::random;
use crate::config::retry::{BackOff, RetryConditions};
use crate::upstream::ConnectFailure;

/// How a try ended, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TryEnd {
    /// With a response.
    Response {
        status: u16,
        /// Only where it came in the headers: then there is no body that would be lost.
        grpc_status: Option<u32>,
    },
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

impl TryEnd {
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
            Failure::PerTryTimeout { .. } => TryEnd::TimedOut,
            _ => TryEnd::Final,
        }
    }
}

/// Whether the conditions ask for another try.
pub(super) fn is_retried(on: &RetryConditions, end: TryEnd, is_idempotent: bool) -> bool {
    let on_any_reset = on.reset
        || on.server_error
        || on.gateway_error
        || (on.reset_if_idempotent && is_idempotent);
    match end {
        TryEnd::Response {
            status,
            grpc_status,
        } => {
            (on.server_error && status >= 500)
                || (on.gateway_error && matches!(status, 502..=504))
                || (on.retriable_4xx && status == 409)
                || on.status_codes.contains(&status)
                || grpc_status.is_some_and(|status| on.grpc_statuses.contains(&status))
        }
        TryEnd::NotConnected => on.connect_failure || on_any_reset,
        TryEnd::NotSent => on.reset_before_request || on.connect_failure || on_any_reset,
        TryEnd::Refused => on.refused_stream || on_any_reset,
        TryEnd::Lost | TryEnd::TimedOut => on_any_reset,
        TryEnd::Final => false,
    }
}

/// Whether a request may have to be sent again after it was sent: then a copy of it must be kept.
pub(super) fn may_resend(on: &RetryConditions, is_idempotent: bool, is_http2: bool) -> bool {
    on.reset
        || on.server_error
        || on.gateway_error
        || on.retriable_4xx
        || !on.status_codes.is_empty()
        || !on.grpc_statuses.is_empty()
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

    fn response(status: u16) -> TryEnd {
        TryEnd::Response {
            status,
            grpc_status: None,
        }
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
        let answered = |grpc_status| TryEnd::Response {
            status: 200,
            grpc_status,
        };

        assert!(is_retried(&on, answered(Some(14)), false));
        assert!(!is_retried(&on, answered(Some(0)), false));
        assert!(!is_retried(&on, answered(None), false));
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
