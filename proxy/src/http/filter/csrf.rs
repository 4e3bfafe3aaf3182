//! CSRF: refuses requests that change something where a page of another origin has asked for them.
//!
//! Browsers tell the origin of a page in `origin`, or in `referer`; as in Envoy only its host and port are compared, with
//! those that are asked, since the scheme is often ended at a proxy in front.

use std::borrow::Cow;

use http::header::{ORIGIN, REFERER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::Passing;
use crate::config::filter::csrf::{CsrfConfig, CsrfPolicy};
use crate::http::failure::{Failure, LocalReply};
use crate::random;
use crate::telemetry::counters::counted;

/// The origin of a page that has none to tell; no policy can allow it.
const OPAQUE: &str = "null";

counted! {
    /// What is counted of origins.
    struct Stats { missing_source_origin, request_invalid, request_valid }
}

/// Looks at the origin of a request; `policy` is the route's, or the filter's own.
pub(super) fn request(
    config: &CsrfConfig,
    policy: &CsrfPolicy,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    if !changes_something(&passing.head.method) {
        return Ok(());
    }
    let is_enabled = policy.enabled.covers(random::draw());
    let is_counted = is_enabled || policy.shadow.covers(random::draw());
    if !is_counted {
        return Ok(());
    }
    let stats = config.live.get_or_init(|| {
        let prefix = format!("http.{}.csrf.", passing.stat_prefix());
        Stats::new(&passing.connection.environment.counters, &prefix)
    });
    let source = source(&passing.head.headers);
    if source.is_empty() || source == OPAQUE {
        stats.missing_source_origin.increment();
    } else if is_allowed(policy, &source, passing.head.authority()) {
        stats.request_valid.increment();
        return Ok(());
    } else {
        stats.request_invalid.increment();
    }
    match is_enabled {
        true => Err(refused()),
        false => Ok(()),
    }
}

fn changes_something(method: &Method) -> bool {
    matches!(
        *method,
        Method::POST | Method::PUT | Method::DELETE | Method::PATCH
    )
}

fn refused() -> Failure {
    Failure::Answered(Box::new(LocalReply {
        body: "Invalid origin".into(),
        ..LocalReply::new(StatusCode::FORBIDDEN, "csrf_origin_mismatch")
    }))
}

fn is_allowed(policy: &CsrfPolicy, source: &str, target: &str) -> bool {
    source == target || policy.origins.iter().any(|origin| origin.is_match(source))
}

/// Host and port of the page; empty where nobody says.
fn source(headers: &HeaderMap) -> Cow<'_, str> {
    match host_of(headers, &ORIGIN) {
        source if source.is_empty() => host_of(headers, &REFERER),
        source => source,
    }
}

fn host_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, str> {
    let mut values = headers.get_all(name).iter();
    let text = |value: &'a HeaderValue| String::from_utf8_lossy(value.as_bytes());
    match (values.next(), values.next()) {
        (None, _) => Cow::Borrowed(""),
        (Some(only), None) => match text(only) {
            Cow::Borrowed(url) => host_and_port(url).into(),
            Cow::Owned(url) => host_and_port(&url).to_owned().into(),
        },
        // Several are none that could be one.
        (Some(_), Some(_)) => {
            let all: Vec<_> = headers.get_all(name).iter().map(text).collect();
            all.join(",").into()
        }
    }
}

/// Host and port of a URL; as in Envoy, what is none stands for itself, such as `null`.
fn host_and_port(url: &str) -> &str {
    authority(url).unwrap_or(url)
}

fn authority(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        || !scheme.bytes().all(is_of_scheme)
        || rest.contains('#')
    {
        return None;
    }
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.rsplit('@').next()?;
    is_authority(authority).then_some(authority)
}

fn is_authority(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_address = host.starts_with('[') && host.ends_with(']');
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = is_address || (!host.is_empty() && host.bytes().all(is_of_name));
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_its_host_and_port() {
        for (url, host) in [
            ("http://a", "a"),
            ("https://a:8443/path?query", "a:8443"),
            ("http://user@a_b?query", "a_b"),
            ("chrome-extension://abc", "abc"),
            ("http://[::1]:80", "[::1]:80"),
            // What is no URL stands for itself.
            ("null", "null"),
            ("//a", "//a"),
            ("http://", "http://"),
            ("http://a:99999", "http://a:99999"),
            ("http://a:", "http://a:"),
            ("http://a#fragment", "http://a#fragment"),
            ("http://a b", "http://a b"),
            ("http://a, http://b", "http://a, http://b"),
        ] {
            assert_eq!(host_and_port(url), host);
        }
    }

    #[test]
    fn several_origins_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(REFERER, HeaderValue::from_static("http://a/page"));
        assert_eq!(source(&headers), "a");

        for origin in ["http://b", "http://c"] {
            headers.append(ORIGIN, HeaderValue::from_static(origin));
        }
        assert_eq!(source(&headers), "http://b,http://c");
    }
}
