//! CORS: answers preflights by the policy of the route, and tells browsers what they may see.

use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Method, StatusCode};

use super::Passing;
use crate::config::filter::cors::CorsPolicy;
use crate::config::filter::live::Live;
use crate::config::percent::Percent;
use crate::http::failure::{Failure, LocalReply};
use crate::random;
use crate::telemetry::counters::counted;

const PRIVATE_ASKED: HeaderName = HeaderName::from_static("access-control-request-private-network");
const PRIVATE_ALLOWED: HeaderName = HeaderName::from_static("access-control-allow-private-network");

counted! {
    /// What is counted of origins.
    struct Stats { origin_valid, origin_invalid }
}

/// Looks at the origin of a request.
pub(super) fn request(live: &Live, passing: &mut Passing<'_>) -> Result<(), Failure> {
    let Some(policy) = passing.overrides().cors.clone() else {
        return Ok(());
    };
    let drawn = random::draw();
    let is_enabled = policy.enabled.unwrap_or(Percent::ALL).covers(drawn);
    let is_counted = policy.shadow.unwrap_or(Percent::ZERO).covers(drawn);
    let Some(origin) = passing.head.headers.get(header::ORIGIN).cloned() else {
        return Ok(());
    };
    if origin.is_empty() || !(is_enabled || is_counted) {
        return Ok(());
    }
    let stats = live.get_or_init(|| {
        let prefix = format!("http.{}.cors.", passing.stat_prefix());
        Stats::new(&passing.connection.environment.counters, &prefix)
    });
    let is_preflight = is_preflight(&passing.head.method, &passing.head.headers);
    if !is_allowed(&policy, &origin) {
        stats.origin_invalid.increment();
        if is_enabled && is_preflight && !policy.forwards_others.unwrap_or(true) {
            let credentials = credentials(&policy).into_iter();
            let told = preflight(&policy, &passing.head.headers);
            return Err(answer(credentials.chain(told).collect()));
        }
        return Ok(());
    }
    stats.origin_valid.increment();
    if !is_enabled {
        return Ok(());
    }
    let answered = is_preflight.then(|| preflight(&policy, &passing.head.headers));
    passing.passage.on_response(move |returning| {
        let headers = returning.response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if let Some((name, value)) = credentials(&policy) {
            headers.insert(name, value);
        }
        if let Some(exposed) = &policy.exposed {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    });
    answered.map_or(Ok(()), |headers| Err(answer(headers)))
}

fn answer(headers: Vec<(HeaderName, HeaderValue)>) -> Failure {
    Failure::Answered(Box::new(LocalReply {
        headers,
        is_final: true,
        ..LocalReply::new(StatusCode::OK, "cors_response")
    }))
}

fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    *method == Method::OPTIONS && asked.is_some_and(|asked| !asked.is_empty())
}

fn is_allowed(policy: &CorsPolicy, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    // As in Envoy: a test that `*` passes is one for all origins.
    let is_match =
        |test: &crate::config::matching::TextMatch| test.is_match("*") || test.is_match(origin);
    policy.origins.iter().any(is_match)
}

fn credentials(policy: &CorsPolicy) -> Option<(HeaderName, HeaderValue)> {
    let allowed = (
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    (policy.allows_credentials == Some(true)).then_some(allowed)
}

/// What a preflight is told, beside what every response is. As in Envoy, `*` is what it asks for.
fn preflight(policy: &CorsPolicy, asked: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![];
    let mut tell = |name: HeaderName, value: Option<&HeaderValue>, question: Option<HeaderName>| {
        let value = match (value, question) {
            (Some(any), Some(question)) if any == "*" => {
                let nothing = HeaderValue::from_static("");
                Some(asked.get(question).cloned().unwrap_or(nothing))
            }
            (value, _) => value.cloned(),
        };
        headers.extend(value.map(|value| (name, value)));
    };
    tell(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        policy.methods.as_ref(),
        Some(header::ACCESS_CONTROL_REQUEST_METHOD),
    );
    tell(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        policy.headers.as_ref(),
        Some(header::ACCESS_CONTROL_REQUEST_HEADERS),
    );
    tell(
        header::ACCESS_CONTROL_MAX_AGE,
        policy.max_age.as_ref(),
        None,
    );
    let asks_private = asked
        .get(PRIVATE_ASKED)
        .is_some_and(|value| value.as_bytes() == b"true");
    if asks_private && policy.allows_private_network == Some(true) {
        headers.push((PRIVATE_ALLOWED, HeaderValue::from_static("true")));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::matching::TextMatch;

    fn policy(origin: &str) -> CorsPolicy {
        CorsPolicy {
            origins: vec![TextMatch::exact(origin)],
            ..CorsPolicy::default()
        }
    }

    #[test]
    fn a_star_allows_every_origin() {
        let origin = HeaderValue::from_static("https://a.example");

        assert!(is_allowed(&policy("*"), &origin));
        assert!(is_allowed(&policy("https://a.example"), &origin));
        assert!(!is_allowed(&policy("https://b.example"), &origin));
    }

    #[test]
    fn a_star_allows_what_a_preflight_asks_for() {
        let any = CorsPolicy {
            methods: Some(HeaderValue::from_static("*")),
            headers: Some(HeaderValue::from_static("x-a")),
            ..policy("*")
        };
        let mut asked = HeaderMap::new();
        asked.insert(
            header::ACCESS_CONTROL_REQUEST_METHOD,
            HeaderValue::from_static("PUT"),
        );

        let told: Vec<_> = preflight(&any, &asked)
            .into_iter()
            .map(|(_, value)| value)
            .collect();

        assert_eq!(told, ["PUT", "x-a"]);
    }

    #[test]
    fn options_alone_is_no_preflight() {
        let mut headers = HeaderMap::new();
        assert!(!is_preflight(&Method::OPTIONS, &headers));

        let asked = HeaderValue::from_static("PUT");
        headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, asked);

        assert!(is_preflight(&Method::OPTIONS, &headers));
        assert!(!is_preflight(&Method::GET, &headers));
    }
}
