//! Which requests a route is for.

use std::sync::Arc;

use weft_proto::envoy::config::route::v3::route_match::{PathSpecifier, TlsContextMatchOptions};
use weft_proto::envoy::config::route::v3::{CookieMatcher, RouteMatch as WireMatch};

use super::at::{At, Invalid, nonempty, required, unsupported};
use super::filter::value::metadata_match;
use super::share::runtime_fraction;
use super::text::{header_matches, pattern, query_matches, text_match};
use crate::config::percent::Percent;
use crate::config::route::conditions::{CertificateMatch, CookieMatch};
use crate::config::route::{PathMatch, RouteMatch};

/// All of its conditions.
pub(super) fn route_match(at: &At<'_>, wire: &WireMatch) -> Result<RouteMatch, Invalid> {
    let WireMatch {
        case_sensitive,
        headers,
        query_parameters,
        grpc,
        runtime_fraction: fraction,
        tls_context,
        dynamic_metadata,
        filter_state,
        cookies,
        path_specifier,
    } = wire;
    unsupported!(at; filter_state);
    let share = match fraction {
        Some(fraction) => runtime_fraction(&at.field("runtime_fraction"), fraction)?,
        None => Percent::ALL,
    };
    Ok(RouteMatch {
        path: path(
            at,
            required(&at.field("path_specifier"), path_specifier.as_ref())?,
        )?,
        ignore_case: *case_sensitive == Some(false),
        headers: header_matches(&at.field("headers"), headers)?,
        query: query_matches(&at.field("query_parameters"), query_parameters)?,
        grpc: grpc.is_some(),
        share,
        certificate: tls_context.as_ref().map_or_else(
            CertificateMatch::default,
            |TlsContextMatchOptions {
                 presented,
                 validated,
             }| CertificateMatch {
                presented: *presented,
                validated: *validated,
            },
        ),
        metadata: dynamic_metadata
            .iter()
            .enumerate()
            .map(|(index, wire)| {
                let at = at.field("dynamic_metadata");
                metadata_match(&at.index(index), wire)
            })
            .collect::<Result<_, _>>()?,
        cookies: cookie_matches(&at.field("cookies"), cookies)?,
    })
}

fn cookie_matches(at: &At<'_>, wire: &[CookieMatcher]) -> Result<Vec<CookieMatch>, Invalid> {
    let cookie = |(index, matcher): (usize, &CookieMatcher)| {
        let at = at.index(index);
        let CookieMatcher {
            name,
            string_match,
            invert_match,
        } = matcher;
        let at_value = at.field("string_match");
        Ok(CookieMatch {
            name: nonempty(&at.field("name"), name)?.into(),
            value: text_match(&at_value, required(&at_value, string_match.as_ref())?)?,
            invert: *invert_match,
        })
    };
    wire.iter().enumerate().map(cookie).collect()
}

fn path(at: &At<'_>, wire: &PathSpecifier) -> Result<PathMatch, Invalid> {
    Ok(match wire {
        PathSpecifier::Prefix(prefix) => PathMatch::Prefix(prefix.as_str().into()),
        PathSpecifier::Path(path) => PathMatch::Exact(path.as_str().into()),
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            PathMatch::SegmentPrefix(segment_prefix(&at.field("path_separated_prefix"), prefix)?)
        }
        PathSpecifier::SafeRegex(regex) => {
            PathMatch::Regex(pattern(&at.field("safe_regex"), regex)?)
        }
        PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
        PathSpecifier::PathMatchPolicy(policy) => {
            return Err(at.field("path_match_policy").refuse_value(&policy.name));
        }
    })
}

/// Envoy's rules: it begins with a slash, does not end with one, and has neither query nor fragment.
fn segment_prefix(at: &At<'_>, prefix: &str) -> Result<Arc<str>, Invalid> {
    let is_valid = prefix.starts_with('/')
        && prefix.len() > 1
        && !prefix.ends_with('/')
        && !prefix.contains(['?', '#']);
    if is_valid {
        Ok(prefix.into())
    } else {
        Err(at.refuse_value(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    #[test]
    fn a_prefix_of_segments_has_no_slash_at_its_end() {
        let notes = Notes::default();
        let at = At::root(&notes);

        assert_eq!(segment_prefix(&at, "/a/b"), Ok("/a/b".into()));
        for prefix in ["/", "a", "/a/", "/a?b"] {
            assert!(segment_prefix(&at, prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_match_without_a_path_is_refused() {
        let notes = Notes::default();

        let error = route_match(&At::root(&notes), &WireMatch::default()).expect_err("refused");

        assert_eq!(error.to_string(), "path_specifier: missing");
    }
}
