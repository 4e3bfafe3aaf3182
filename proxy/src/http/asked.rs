//! What callers ask for in headers: time-outs and retries. Callers from outside have lost theirs before.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{ask_something, number};
use crate::config::matching::{HeaderMatch, HeaderTest, RequestLine, Subject};
use crate::config::retry::{RetryConditions, RetryPolicy, words};
use crate::config::route::Forward;
use crate::config::route::limits::{GrpcTimeout, StreamDuration};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const HEADER_NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");

/// Headers that only callers inside may send.
pub(super) const INTERNAL_ONLY: [HeaderName; 12] = [
    RETRY_ON,
    RETRY_GRPC_ON,
    MAX_RETRIES,
    STATUS_CODES,
    HEADER_NAMES,
    HEDGE,
    TIMEOUT,
    PER_TRY,
    EXPECTED,
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-original-url"),
];

/// One retry where nobody says how many.
const DEFAULT_RETRIES: u32 = 1;

/// How long a request may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// From the end of the request to the end of the response, over all tries.
    pub(super) global: Option<Duration>,
    /// One try.
    pub(super) per_try: Option<Duration>,
    /// How long one try may be silent.
    pub(super) per_try_idle: Option<Duration>,
}

/// Whether a caller asks for anything: found out once for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    Something,
    Nothing,
}

impl Asking {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match ask_something(headers) {
            true => Asking::Something,
            false => Asking::Nothing,
        }
    }
}

/// Which time-outs hold, of the route's and those asked for.
pub(super) fn timeouts(
    (headers, asking): (&mut HeaderMap, Asking),
    forward: &Forward,
    policy: Option<&RetryPolicy>,
    is_grpc: bool,
    respects_expected: bool,
) -> Timeouts {
    let mut global = match (forward.stream_duration, forward.grpc_timeout) {
        (Some(_), _) => None,
        (None, Some(grpc)) if is_grpc => of_grpc(headers, grpc),
        (None, _) => forward.timeout,
    };
    let expected = respects_expected
        .then(|| millis(headers, &EXPECTED))
        .flatten();
    let mut per_try = policy.and_then(|policy| policy.per_try_timeout);
    if asking == Asking::Something {
        // What is asked for is not told the upstream.
        let asked = millis(headers, &TIMEOUT);
        headers.remove(TIMEOUT);
        if let Some(asked) = expected.or(asked) {
            global = Some(asked).filter(|limit| !limit.is_zero());
        }
        if let Some(asked) = millis(headers, &PER_TRY) {
            per_try = Some(asked).filter(|limit| !limit.is_zero());
        }
        headers.remove(PER_TRY);
    }
    if let (Some(one), Some(all)) = (per_try, global)
        && one >= all
    {
        per_try = None;
    }
    Timeouts {
        global,
        per_try,
        per_try_idle: policy.and_then(|policy| policy.per_try_idle_timeout),
    }
}

impl Timeouts {
    /// How long the upstream has, when so much time has passed.
    pub(super) fn expected(self, elapsed: Duration, hedges: bool) -> Option<Duration> {
        let one = self.per_try.filter(|_| !hedges).or(self.global)?;
        Some(match self.global {
            Some(all) => one.min(all.saturating_sub(elapsed)),
            None => one,
        })
    }
}

/// Tells the upstream how long it has.
pub(super) fn tell_expected(headers: &mut HeaderMap, expected: Option<Duration>) {
    if let Some(expected) = expected {
        let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        headers.insert(EXPECTED, number(millis));
    }
}

/// Tells a gRPC upstream how long it has.
pub(super) fn tell_grpc(headers: &mut HeaderMap, limit: Duration) {
    if let Ok(value) = HeaderValue::try_from(grpc_text(limit)) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

/// From the beginning of a request to the end of its response: the route's limit, else the chain's. What a
/// gRPC caller asks for is told the upstream, as far as it holds.
pub(super) fn stream_duration(
    (headers, is_grpc): (&mut HeaderMap, bool),
    route: Option<StreamDuration>,
    chain: Option<Duration>,
) -> Option<Duration> {
    let route = route.unwrap_or_default();
    let asked = route
        .grpc_max
        .and_then(|max| Some((grpc_timeout(headers)?, max)));
    let Some((asked, max)) = asked else {
        let limit = route.max.or(chain).filter(|limit| !limit.is_zero());
        if let (true, Some(limit)) = (is_grpc, limit) {
            tell_grpc(headers, limit);
        }
        return limit;
    };
    let mut limit = if max.is_zero() { asked } else { asked.min(max) };
    if let Some(offset) = route.grpc_offset {
        limit = limit.saturating_sub(offset);
    }
    tell_grpc(headers, limit);
    Some(limit)
}

fn of_grpc(headers: &HeaderMap, config: GrpcTimeout) -> Option<Duration> {
    let mut limit = grpc_timeout(headers).unwrap_or_default();
    if let Some(offset) = config.offset
        && offset < limit
    {
        limit -= offset;
    }
    // Zero is no limit on either side.
    if !config.max.is_zero() && (limit.is_zero() || limit > config.max) {
        limit = config.max;
    }
    Some(limit).filter(|limit| !limit.is_zero())
}

/// gRPC over HTTP/2, "Timeout": up to eight digits and a unit.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count.checked_mul(3600)?),
        "M" => Duration::from_secs(count.checked_mul(60)?),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// In the finest unit from milliseconds up whose count has eight digits.
fn grpc_text(limit: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let millis = limit.as_millis();
    for (unit, size) in [("m", 1), ("S", 1000), ("M", 60_000)] {
        if millis / size <= MOST {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{}H", (millis / 3_600_000).min(MOST))
}

fn millis(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    let text = headers.get(name)?.to_str().ok()?;
    text.parse().ok().map(Duration::from_millis)
}

/// The route's retry policy with what the caller asks for; those headers end here.
pub(super) fn policy(
    (headers, asking): (&mut HeaderMap, Asking),
    line: RequestLine<'_>,
    route: Option<&Arc<RetryPolicy>>,
) -> Option<Arc<RetryPolicy>> {
    let is_excluded = route.is_some_and(|policy| {
        let mut wanted = policy.requests.iter();
        !policy.requests.is_empty() && !wanted.any(|wanted| wanted.is_match(line, headers))
    });
    let names = [
        &RETRY_ON,
        &RETRY_GRPC_ON,
        &MAX_RETRIES,
        &STATUS_CODES,
        &HEADER_NAMES,
    ];
    let asks = |name| headers.contains_key(name);
    if asking == Asking::Nothing || !names.into_iter().any(asks) {
        return route.filter(|_| !is_excluded).cloned();
    }
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (on, grpc_on) = (text(&RETRY_ON), text(&RETRY_GRPC_ON));
    let mut policy = match route {
        Some(route) => RetryPolicy::clone(route),
        None => RetryPolicy {
            retries: DEFAULT_RETRIES,
            ..RetryPolicy::default()
        },
    };
    add_conditions(&mut policy.on, headers, (on, grpc_on));
    if let Some(retries) = text(&MAX_RETRIES).and_then(|text| text.parse().ok()) {
        policy.retries = retries;
    }
    for name in names {
        headers.remove(name);
    }
    let is_asked = policy.on != RetryConditions::default() && !is_excluded;
    is_asked.then(|| Arc::new(policy))
}

fn add_conditions(
    conditions: &mut RetryConditions,
    headers: &HeaderMap,
    (on, grpc_on): (Option<&str>, Option<&str>),
) {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    for word in words(on.unwrap_or_default()) {
        conditions.add(word);
        match word {
            "retriable-status-codes" => {
                let codes = words(text(&STATUS_CODES).unwrap_or_default());
                let codes = codes.filter_map(|code| code.parse::<u16>().ok());
                conditions.status_codes.extend(codes);
            }
            "retriable-headers" => {
                let names = words(text(&HEADER_NAMES).unwrap_or_default());
                conditions.headers.extend(names.filter_map(present));
            }
            _ => {}
        }
    }
    for word in words(grpc_on.unwrap_or_default()) {
        conditions.add_grpc(word);
    }
}

fn present(name: &str) -> Option<HeaderMatch> {
    Some(HeaderMatch {
        subject: Subject::Header(name.parse().ok()?),
        test: HeaderTest::Present,
        invert: false,
        missing_is_empty: false,
    })
}

/// Whether a try that took too long goes on beside the next.
pub(super) fn hedges((headers, asking): (&mut HeaderMap, Asking), route: bool) -> bool {
    if asking == Asking::Nothing {
        return route;
    }
    match headers.remove(HEDGE) {
        Some(asked) => asked == "true",
        None => route,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: RequestLine<'static> = RequestLine {
        method: "GET",
        path: "/",
        authority: "a",
        scheme: "http",
    };

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect()
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn a_caller_may_ask_for_another_time_out() {
        let forward = Forward {
            timeout: seconds(15),
            ..Forward::to("c")
        };
        let limits = |fields: &[(&'static str, &'static str)]| {
            let mut headers = headers(fields);
            let asking = Asking::of(&headers);
            let limits = timeouts((&mut headers, asking), &forward, None, false, false);
            assert!(headers.is_empty());
            (limits.global, limits.per_try)
        };

        assert_eq!(limits(&[]), (seconds(15), None));
        let asked = ("x-envoy-upstream-rq-timeout-ms", "2000");
        assert_eq!(limits(&[asked]), (seconds(2), None));
        let none = ("x-envoy-upstream-rq-timeout-ms", "0");
        assert_eq!(limits(&[none]), (None, None));
        let one = ("x-envoy-upstream-rq-per-try-timeout-ms", "1000");
        assert_eq!(limits(&[one]), (seconds(15), seconds(1)));
        let long = ("x-envoy-upstream-rq-per-try-timeout-ms", "15000");
        assert_eq!(limits(&[long]), (seconds(15), None));
    }

    #[test]
    fn a_grpc_caller_is_listened_to_up_to_the_routes_most() {
        let forward = |max, offset| Forward {
            timeout: seconds(15),
            grpc_timeout: Some(GrpcTimeout { max, offset }),
            ..Forward::to("c")
        };
        let limit = |asked: Option<&'static str>, forward: &Forward| {
            let mut headers =
                asked.map_or_else(HeaderMap::new, |asked| headers(&[("grpc-timeout", asked)]));
            let asking = Asking::of(&headers);
            timeouts((&mut headers, asking), forward, None, true, false).global
        };
        let ten = forward(Duration::from_secs(10), seconds(1));
        let any = forward(Duration::ZERO, None);

        assert_eq!(limit(Some("5S"), &ten), seconds(4));
        assert_eq!(limit(Some("1M"), &ten), seconds(10));
        assert_eq!(limit(None, &ten), seconds(10));
        assert_eq!(limit(Some("1H"), &any), seconds(3600));
        assert_eq!(limit(None, &any), None);
        assert_eq!(limit(Some("123456789S"), &any), None);
    }

    #[test]
    fn the_upstream_is_told_what_is_left() {
        let limits = Timeouts {
            global: seconds(10),
            per_try: seconds(4),
            per_try_idle: None,
        };

        assert_eq!(limits.expected(Duration::ZERO, false), seconds(4));
        assert_eq!(limits.expected(Duration::from_secs(8), false), seconds(2));
        assert_eq!(limits.expected(Duration::from_secs(1), true), seconds(9));
    }

    #[test]
    fn the_duration_of_a_stream_is_the_routes_or_the_chains_or_what_grpc_asks_for() {
        let route = StreamDuration {
            max: seconds(5),
            grpc_max: seconds(3),
            grpc_offset: seconds(1),
        };
        let mut asking = headers(&[("grpc-timeout", "10S")]);

        assert_eq!(
            stream_duration((&mut HeaderMap::new(), false), None, seconds(9)),
            seconds(9)
        );
        assert_eq!(
            stream_duration((&mut HeaderMap::new(), false), Some(route), seconds(9)),
            seconds(5)
        );
        assert_eq!(
            stream_duration((&mut asking, true), Some(route), seconds(9)),
            seconds(2)
        );
        assert_eq!(asking["grpc-timeout"], "2000m");
        let none = StreamDuration {
            max: Some(Duration::ZERO),
            ..StreamDuration::default()
        };
        assert_eq!(
            stream_duration((&mut HeaderMap::new(), false), Some(none), seconds(9)),
            None
        );
    }

    #[test]
    fn a_caller_may_ask_for_retries() {
        let mut asking = headers(&[
            ("x-envoy-retry-on", "retriable-status-codes,connect-failure"),
            ("x-envoy-retry-grpc-on", "unavailable"),
            ("x-envoy-retriable-status-codes", "418,x"),
            ("x-envoy-max-retries", "3"),
        ]);

        let policy = policy((&mut asking, Asking::Something), LINE, None).expect("a policy");

        assert!(policy.on.connect_failure);
        assert_eq!(policy.on.status_codes, [418]);
        assert_eq!(policy.on.grpc_statuses, [14]);
        assert_eq!(policy.retries, 3);
        assert!(asking.is_empty());
    }

    #[test]
    fn a_policy_may_be_for_some_requests_only() {
        let route = Arc::new(RetryPolicy {
            requests: vec![present("x-again").expect("a name")],
            retries: 1,
            ..RetryPolicy::default()
        });

        let none = (&mut HeaderMap::new(), Asking::Nothing);
        assert!(policy(none, LINE, Some(&route)).is_none());
        let mut with = headers(&[("x-again", "1")]);
        assert!(policy((&mut with, Asking::Nothing), LINE, Some(&route)).is_some());
    }
}
