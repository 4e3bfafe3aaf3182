//! Redirects of the upstream that are followed here, so that the caller sees only where they end.

use http::header;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};

use super::headers::{self, Head};
use crate::config::route::internal_redirect::InternalRedirects;
use crate::snapshot::routes::Selected;
use crate::telemetry::managers::HttpEvent;
use crate::upstream::response::UpstreamBody;

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Which redirects a request has followed.
#[derive(Debug, Default)]
pub(super) struct Followed {
    count: u32,
    /// Routes it has been on, by virtual host and name.
    routes: Vec<(String, String)>,
}

impl Followed {
    /// The request that a response asks for, where it is one to follow; else the response is the caller's, and is
    /// counted as what this returns.
    pub(super) fn next(
        &self,
        policy: &InternalRedirects,
        response: &Response<UpstreamBody>,
        before: Head,
    ) -> Result<Head, HttpEvent> {
        let location = headers::text(response.headers().get(header::LOCATION));
        let next = next_head(policy, response.status(), location, before)?;
        if self.count >= policy.max {
            return Err(HttpEvent::RedirectTooMany);
        }
        Ok(copied(next, policy, response.headers()))
    }

    /// Remembers a route that a redirect has led away from.
    pub(super) fn leave(&mut self, selected: Selected<'_>) {
        self.count += 1;
        let names = (&selected.host.name, &selected.route.name);
        self.routes.push((names.0.to_string(), names.1.to_string()));
    }

    /// Whether a redirect may lead from a route to another.
    pub(super) fn may_enter(
        &self,
        policy: &InternalRedirects,
        from: Selected<'_>,
        selected: Selected<'_>,
    ) -> bool {
        let (host, route) = (&*selected.host.name, &*selected.route.name);
        let is_allowed = policy
            .allowed_routes
            .as_ref()
            .is_none_or(|allowed| allowed.iter().any(|name| name == route));
        let has_been_there = || {
            let mut routes = self.routes.iter();
            std::ptr::eq(from.route, selected.route)
                || routes.any(|(one, other)| one == host && other == route)
        };
        is_allowed && !(policy.avoids_previous_routes && has_been_there())
    }
}

fn next_head(
    policy: &InternalRedirects,
    status: StatusCode,
    location: &str,
    before: Head,
) -> Result<Head, HttpEvent> {
    let bad = HttpEvent::RedirectBadLocation;
    let location: Uri = location.parse().map_err(|_| bad)?;
    let scheme = headers::text(before.headers.get(FORWARDED_PROTO)).to_owned();
    let new_scheme = location.scheme_str().unwrap_or(&scheme);
    let is_known = matches!(new_scheme, "http" | "https");
    let is_allowed = new_scheme == scheme
        || (policy.across_schemes && (!policy.safe_schemes_only || scheme == "https"));
    if !is_known {
        return Err(bad);
    }
    if !is_allowed {
        return Err(HttpEvent::RedirectUnsafeScheme);
    }
    let original = format!("{scheme}://{}{}", before.authority(), before.path());
    let mut next = before;
    let original = HeaderValue::try_from(original).map_err(|_| bad)?;
    next.headers.insert(ORIGINAL_URL, original);
    let scheme = HeaderValue::from_str(new_scheme).map_err(|_| bad)?;
    next.headers.insert(FORWARDED_PROTO, scheme);
    next.scheme = headers::known_scheme(new_scheme).unwrap_or(next.scheme);
    if let Some(authority) = location.authority() {
        next.authority = HeaderValue::from_str(authority.as_str()).ok();
    }
    let root = PathAndQuery::from_static("/");
    next.path = location.path_and_query().cloned().unwrap_or(root);
    if status == StatusCode::SEE_OTHER && !matches!(next.method, Method::GET | Method::HEAD) {
        next.method = Method::GET;
        for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE] {
            next.headers.remove(name);
        }
    }
    Ok(next)
}

fn copied(mut next: Head, policy: &InternalRedirects, response: &HeaderMap) -> Head {
    for name in &policy.copied_headers {
        next.headers.remove(name);
        for value in response.get_all(name) {
            next.headers.append(name.clone(), value.clone());
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: Method) -> Head {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("4"));
        Head {
            scheme: "http",
            method,
            path: PathAndQuery::from_static("/a?b=c"),
            authority: Some(HeaderValue::from_static("here")),
            headers,
            uri: Uri::default(),
            extensions: Default::default(),
        }
    }

    fn redirected(policy: &InternalRedirects, status: StatusCode, location: &str) -> Option<Head> {
        next_head(policy, status, location, head(Method::POST)).ok()
    }

    #[test]
    fn the_next_request_goes_where_the_location_says() {
        let policy = InternalRedirects::default();

        let there = redirected(&policy, StatusCode::FOUND, "http://there/x?y=z").expect("it");
        let here = redirected(&policy, StatusCode::FOUND, "/x").expect("it");

        assert_eq!((there.authority(), there.path()), ("there", "/x?y=z"));
        assert_eq!((here.authority(), here.path()), ("here", "/x"));
        assert_eq!(there.headers[ORIGINAL_URL], "http://here/a?b=c");
        assert_eq!(there.method, Method::POST);
    }

    #[test]
    fn see_other_is_seen_with_get() {
        let policy = InternalRedirects::default();

        let next = redirected(&policy, StatusCode::SEE_OTHER, "/x").expect("it");

        assert_eq!(next.method, Method::GET);
        assert!(!next.headers.contains_key(header::CONTENT_LENGTH));
    }

    #[test]
    fn another_scheme_needs_leave() {
        let mut policy = InternalRedirects::default();
        let to = |policy: &_, location| redirected(policy, StatusCode::FOUND, location).is_some();

        assert!(!to(&policy, "https://there/"));
        assert!(!to(&policy, "ftp://there/"));
        assert!(!to(&policy, "no location"));
        policy.across_schemes = true;
        assert!(to(&policy, "https://there/"));
        // From http, https would be safe for the caller; what is not safe is the other way round.
        policy.safe_schemes_only = true;
        assert!(!to(&policy, "https://there/"));
    }
}
