//! The conditions of a rule, each for itself.

use serde_json::json;

use super::super::http_syntax;
use super::super::path::Path;
use crate::kinds::http_route::{
    HttpRouteMatch, HttpRouteRule, PathMatch, PathMatchType, ValueMatch, ValueMatchType,
};
use crate::refusal::Cause;

/// What is wrong with the matches of a rule.
pub(super) fn causes(rule: &HttpRouteRule, path: &Path) -> Vec<Cause> {
    rule.matches
        .iter()
        .enumerate()
        .flat_map(|(index, one)| match_causes(one, &path.index(index)))
        .collect()
}

fn match_causes(one: &HttpRouteMatch, path: &Path) -> Vec<Cause> {
    let mut causes: Vec<Cause> = one
        .path
        .iter()
        .filter_map(|matched| path_causes(matched, &path.field("path").field("value")))
        .collect();
    let headers = path.field("headers");
    for (index, header) in one.headers.iter().enumerate() {
        let path = headers.index(index);
        causes.extend(http_syntax::header_name(&header.name, &path.field("name")));
        let is_twice = one.headers[..index]
            .iter()
            .any(|other| other.name.eq_ignore_ascii_case(&header.name));
        causes.extend(value_causes(header, is_twice, &path));
    }
    let params = path.field("queryParams");
    for (index, param) in one.query_params.iter().enumerate() {
        let is_twice = one.query_params[..index]
            .iter()
            .any(|other| other.name == param.name);
        causes.extend(value_causes(param, is_twice, &params.index(index)));
    }
    causes
}

fn path_causes(matched: &PathMatch, path: &Path) -> Option<Cause> {
    match matched.kind {
        PathMatchType::Exact | PathMatchType::PathPrefix => {
            http_syntax::absolute_path(&matched.value, path)
        }
        PathMatchType::RegularExpression => http_syntax::expression(&matched.value, path),
    }
}

fn value_causes(matched: &ValueMatch, is_twice: bool, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    if is_twice {
        causes.push(Cause::duplicate(
            path.field("name"),
            &matched.name,
            "only the first condition for a name counts",
        ));
    }
    if matched.kind == ValueMatchType::RegularExpression {
        causes.extend(http_syntax::expression(
            &matched.value,
            &path.field("value"),
        ));
    }
    if matched.name.is_empty() {
        causes.push(Cause::invalid(
            path.field("name"),
            &json!(""),
            "must not be empty",
        ));
    }
    causes
}
