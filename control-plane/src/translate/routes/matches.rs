//! Conditions of routes, and which of several that hold goes first.

use std::cmp::Reverse;
use std::collections::HashSet;

use weft_proto::envoy::config::route::v3 as route;
use weft_proto::envoy::r#type::matcher::v3 as matcher;

use crate::kinds::http_route::{HttpRouteMatch, PathMatchType, ValueMatch, ValueMatchType};
use crate::translate::wire;

/// How early a condition is tried, the smallest first: exact paths, then regular expressions, then prefixes by
/// length; then those with a method, then by number of headers, then of query parameters (Gateway API,
/// `HTTPRouteRule.matches`; where regular expressions stand is for the implementation to say).
pub(super) fn precedence(condition: Option<&HttpRouteMatch>) -> impl Ord + use<> {
    let nothing = HttpRouteMatch::default();
    let condition = condition.unwrap_or(&nothing);
    let path = condition.path.as_ref();
    let (rank, length) = match path.map(|path| (path.kind, path.value.len())) {
        Some((PathMatchType::Exact, length)) => (0, length),
        Some((PathMatchType::RegularExpression, length)) => (1, length),
        Some((PathMatchType::PathPrefix, length)) => (2, length),
        None => (2, 1),
    };
    (
        rank,
        Reverse(length),
        condition.method.is_none(),
        Reverse(condition.headers.len()),
        Reverse(condition.query_params.len()),
    )
}

/// The condition for Envoy; none holds for every request.
pub(super) fn of(condition: Option<&HttpRouteMatch>) -> route::RouteMatch {
    let nothing = HttpRouteMatch::default();
    let HttpRouteMatch {
        path,
        headers,
        query_params,
        method,
    } = condition.unwrap_or(&nothing);
    let path = path
        .as_ref()
        .map_or((PathMatchType::PathPrefix, "/"), |path| {
            (path.kind, path.value.as_str())
        });
    let method = method.map(|method| header(":method", wire::exactly(method.as_str())));
    let headers = first_of_each(headers, str::to_ascii_lowercase)
        .map(|condition| header(&condition.name.to_ascii_lowercase(), value(condition)));
    route::RouteMatch {
        path_specifier: Some(path_specifier(path.0, path.1)),
        headers: method.into_iter().chain(headers).collect(),
        query_parameters: first_of_each(query_params, str::to_owned)
            .map(query_parameter)
            .collect(),
        ..route::RouteMatch::default()
    }
}

/// A prefix of Gateway API consists of whole segments: `/a` is for `/a` and `/a/b`, not for `/ab`.
fn path_specifier(kind: PathMatchType, path: &str) -> route::route_match::PathSpecifier {
    use route::route_match::PathSpecifier;

    let without_slash = path.trim_end_matches('/');
    match kind {
        PathMatchType::Exact => PathSpecifier::Path(path.to_owned()),
        PathMatchType::RegularExpression => PathSpecifier::SafeRegex(wire::regex(path)),
        PathMatchType::PathPrefix if without_slash.is_empty() => {
            PathSpecifier::Prefix("/".to_owned())
        }
        PathMatchType::PathPrefix => PathSpecifier::PathSeparatedPrefix(without_slash.to_owned()),
    }
}

fn header(name: &str, condition: matcher::StringMatcher) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(
            condition,
        )),
        ..route::HeaderMatcher::default()
    }
}

fn query_parameter(condition: &ValueMatch) -> route::QueryParameterMatcher {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier;

    route::QueryParameterMatcher {
        name: condition.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(value(
            condition,
        ))),
    }
}

fn value(condition: &ValueMatch) -> matcher::StringMatcher {
    match condition.kind {
        ValueMatchType::Exact => wire::exactly(&condition.value),
        ValueMatchType::RegularExpression => matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(
                wire::regex(&condition.value),
            )),
            ..matcher::StringMatcher::default()
        },
    }
}

/// Of several conditions on one name only the first counts, says Gateway API.
fn first_of_each(
    conditions: &[ValueMatch],
    key: impl Fn(&str) -> String,
) -> impl Iterator<Item = &ValueMatch> {
    let mut seen = HashSet::new();
    conditions
        .iter()
        .filter(move |condition| seen.insert(key(&condition.name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(json: serde_json::Value) -> HttpRouteMatch {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_more_specific_condition_goes_first() {
        let in_order = [
            json!({"path": {"type": "Exact", "value": "/a"}}),
            json!({"path": {"type": "PathPrefix", "value": "/a/b"}}),
            json!({"path": {"type": "PathPrefix", "value": "/a"}, "method": "GET"}),
            json!({"path": {"type": "PathPrefix", "value": "/a"},
                   "headers": [{"name": "x", "value": "1"}, {"name": "y", "value": "1"}]}),
            json!({"path": {"type": "PathPrefix", "value": "/a"}, "headers": [{"name": "x", "value": "1"}]}),
            json!({"path": {"type": "PathPrefix", "value": "/a"}, "queryParams": [{"name": "x", "value": "1"}]}),
            json!({"path": {"type": "PathPrefix", "value": "/a"}}),
            json!({}),
        ]
        .map(condition);

        assert!(
            in_order.is_sorted_by(|one, other| precedence(Some(one)) < precedence(Some(other)))
        );
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        use route::route_match::PathSpecifier;

        let prefix = |path| path_specifier(PathMatchType::PathPrefix, path);

        assert_eq!(
            prefix("/a/"),
            PathSpecifier::PathSeparatedPrefix("/a".to_owned())
        );
        assert_eq!(prefix("/"), PathSpecifier::Prefix("/".to_owned()));
    }

    #[test]
    fn of_two_conditions_on_one_header_the_first_counts() {
        let condition = condition(json!({"headers": [
            {"name": "X-User", "value": "a"}, {"name": "x-user", "value": "b"}
        ]}));

        let headers = of(Some(&condition)).headers;

        assert_eq!(headers.len(), 1);
        assert_eq!(headers[0].name, "x-user");
    }
}
