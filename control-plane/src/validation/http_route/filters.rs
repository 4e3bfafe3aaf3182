//! The filters of a rule, each for itself and all together.

use serde_json::json;

use super::super::http_syntax;
use super::super::path::Path;
use crate::kinds::http_route::{
    FilterAction, HeaderModifier, HttpRouteRule, PathAction, PathMatchType, PathModifier,
};
use crate::refusal::Cause;

/// What is wrong with the filters of a rule.
pub(super) fn causes(rule: &HttpRouteRule, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, filter) in rule.filters.iter().enumerate() {
        let path = path.index(index);
        if rule.filters[..index]
            .iter()
            .any(|other| other.kind == filter.kind)
        {
            causes.push(Cause::duplicate(
                path.field("type"),
                json!(filter.kind).as_str().unwrap_or_default(),
                "a rule has at most one filter of a type",
            ));
        }
        match filter.action() {
            None => causes.push(Cause::invalid(
                &path,
                &json!(filter.kind),
                "needs exactly the part that type names, with its name in camelCase",
            )),
            Some(action) => causes.extend(action_causes(rule, action, &path)),
        }
    }
    causes.extend(contradictions(rule, path));
    causes
}

fn action_causes(rule: &HttpRouteRule, action: FilterAction<'_>, path: &Path) -> Vec<Cause> {
    match action {
        FilterAction::RequestHeaders(headers) => {
            header_causes(headers, &path.field("requestHeaderModifier"))
        }
        FilterAction::ResponseHeaders(headers) => {
            header_causes(headers, &path.field("responseHeaderModifier"))
        }
        FilterAction::Redirect(redirect) => {
            let path = path.field("requestRedirect");
            let mut causes = host_causes(redirect.hostname.as_deref(), &path);
            causes.extend(path_causes(
                rule,
                redirect.path.as_ref(),
                &path.field("path"),
            ));
            if let Some(code) = redirect.status_code
                && !matches!(code, 301 | 302 | 303 | 307 | 308)
            {
                causes.push(Cause::not_supported(
                    path.field("statusCode"),
                    &json!(code),
                    &["301", "302", "303", "307", "308"],
                ));
            }
            causes
        }
        FilterAction::Rewrite(rewrite) => {
            let path = path.field("urlRewrite");
            let mut causes = host_causes(rewrite.hostname.as_deref(), &path);
            causes.extend(path_causes(
                rule,
                rewrite.path.as_ref(),
                &path.field("path"),
            ));
            if rewrite.hostname.is_none() && rewrite.path.is_none() {
                causes.push(Cause::required(path, "hostname or path"));
            }
            causes
        }
    }
}

fn host_causes(host: Option<&str>, path: &Path) -> Vec<Cause> {
    host.and_then(|host| http_syntax::host_name(host, &path.field("hostname")))
        .into_iter()
        .collect()
}

fn path_causes(rule: &HttpRouteRule, modifier: Option<&PathModifier>, path: &Path) -> Vec<Cause> {
    let Some(modifier) = modifier else {
        return Vec::new();
    };
    match modifier.action() {
        None => vec![Cause::invalid(
            path,
            &json!(modifier.kind),
            "needs exactly the part that type names, with its name in camelCase",
        )],
        Some(PathAction::Full(full)) => {
            http_syntax::absolute_path(full, &path.field("replaceFullPath"))
                .into_iter()
                .collect()
        }
        Some(PathAction::Prefix(prefix)) => {
            let mut causes: Vec<Cause> = (!prefix.is_empty())
                .then(|| http_syntax::absolute_path(prefix, &path.field("replacePrefixMatch")))
                .flatten()
                .into_iter()
                .collect();
            if !has_prefixes_only(rule) {
                causes.push(Cause::invalid(
                    path.field("type"),
                    &json!("ReplacePrefixMatch"),
                    "every match of the rule must be of a path with type PathPrefix",
                ));
            }
            causes
        }
    }
}

/// A match without a path is one of the prefix `/`.
fn has_prefixes_only(rule: &HttpRouteRule) -> bool {
    rule.matches.iter().all(|one| {
        one.path
            .as_ref()
            .is_none_or(|path| path.kind == PathMatchType::PathPrefix)
    })
}

fn header_causes(modifier: &HeaderModifier, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (list, headers) in [("set", &modifier.set), ("add", &modifier.add)] {
        for (index, header) in headers.iter().enumerate() {
            let path = path.field(list).index(index);
            causes.extend(changed_header(&header.name, &path.field("name")));
            causes.extend(http_syntax::header_value(
                &header.value,
                &path.field("value"),
            ));
            let is_twice = headers[..index]
                .iter()
                .any(|other| other.name.eq_ignore_ascii_case(&header.name));
            if is_twice {
                causes.push(Cause::duplicate(
                    path.field("name"),
                    &header.name,
                    "named before in this list",
                ));
            }
        }
    }
    for (index, name) in modifier.remove.iter().enumerate() {
        causes.extend(changed_header(name, &path.field("remove").index(index)));
    }
    if modifier.set.is_empty() && modifier.add.is_empty() && modifier.remove.is_empty() {
        causes.push(Cause::required(path, "set, add or remove"));
    }
    causes
}

/// Headers that frame the message are not for routes to change (RFC 9110 §7.6.1); the host is URLRewrite's.
fn changed_header(name: &str, path: &Path) -> Option<Cause> {
    const FRAMING: [&str; 5] = [
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "te",
    ];
    let lower = name.to_ascii_lowercase();
    if FRAMING.contains(&lower.as_str()) {
        return Some(Cause::forbidden(
            path,
            format!("{name} belongs to the connection"),
        ));
    }
    if lower == "host" {
        return Some(Cause::forbidden(path, "change the host with URLRewrite"));
    }
    http_syntax::header_name(name, path)
}

fn contradictions(rule: &HttpRouteRule, path: &Path) -> Option<Cause> {
    let has = |wanted: fn(&FilterAction<'_>) -> bool| {
        rule.filters
            .iter()
            .filter_map(|filter| filter.action())
            .any(|action| wanted(&action))
    };
    let redirects = has(|action| matches!(action, FilterAction::Redirect(_)));
    let rewrites = has(|action| matches!(action, FilterAction::Rewrite(_)));
    (redirects && rewrites).then(|| {
        Cause::forbidden(
            path,
            "RequestRedirect and URLRewrite in one rule: what is redirected is not sent on",
        )
    })
}
