//! Hosts and paths changed on the way, and redirections.

use weft_proto::envoy::config::route::v3 as route;
use weft_proto::envoy::r#type::matcher::v3 as matcher;

use crate::kinds::http_route::{
    HttpRouteMatch, PathAction, PathMatchType, RequestRedirect, Scheme, UrlRewrite,
};
use crate::translate::wire;

/// The prefix that a condition matched, without its last slash; it is what a prefix rewrite replaces.
pub(super) fn matched_prefix(condition: Option<&HttpRouteMatch>) -> &str {
    condition
        .and_then(|condition| condition.path.as_ref())
        .filter(|path| path.kind == PathMatchType::PathPrefix)
        .map_or("", |path| path.value.trim_end_matches('/'))
}

/// Changes host and path of what is forwarded.
pub(super) fn apply_rewrite(action: &mut route::RouteAction, rewrite: &UrlRewrite, prefix: &str) {
    let UrlRewrite { hostname, path } = rewrite;
    if let Some(hostname) = hostname {
        action.host_rewrite_specifier =
            Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral(hostname.clone()));
    }
    match path.as_ref().and_then(|path| path.action()) {
        Some(PathAction::Full(path)) => action.regex_rewrite = Some(whole_path(path)),
        Some(PathAction::Prefix(replacement)) => {
            action.regex_rewrite = Some(prefix_of_path(prefix, replacement));
        }
        None => {}
    }
}

/// Sends the client elsewhere.
pub(super) fn redirection(redirect: &RequestRedirect, prefix: &str) -> route::RedirectAction {
    use route::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };

    let RequestRedirect {
        scheme,
        hostname,
        path,
        port,
        status_code,
    } = redirect;
    let path = path
        .as_ref()
        .and_then(|path| path.action())
        .map(|action| match action {
            PathAction::Full(path) => PathRewriteSpecifier::PathRedirect(path.to_owned()),
            PathAction::Prefix(replacement) => {
                PathRewriteSpecifier::RegexRewrite(prefix_of_path(prefix, replacement))
            }
        });
    let code = match status_code {
        Some(301) => RedirectResponseCode::MovedPermanently,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    route::RedirectAction {
        host_redirect: hostname.clone().unwrap_or_default(),
        path_rewrite_specifier: path,
        response_code: code.into(),
        scheme_rewrite_specifier: scheme.map(|scheme| {
            let name = match scheme {
                Scheme::Http => "http",
                Scheme::Https => "https",
            };
            SchemeRewriteSpecifier::SchemeRedirect(name.to_owned())
        }),
        port_redirect: port.map_or(0, u32::from),
        ..route::RedirectAction::default()
    }
}

fn whole_path(path: &str) -> matcher::RegexMatchAndSubstitute {
    matcher::RegexMatchAndSubstitute {
        pattern: Some(wire::regex("^/.*$")),
        substitution: substitution(path),
    }
}

/// Replaces whole segments: `/a` by `/b` makes `/a/x` into `/b/x`, by `/` into `/x`, and `/a` itself into `/`.
/// A plain prefix rewrite would make `//x` of it.
fn prefix_of_path(prefix: &str, replacement: &str) -> matcher::RegexMatchAndSubstitute {
    let replacement = replacement.trim_end_matches('/');
    let (pattern, substitution) = match replacement.is_empty() {
        true => (format!("^{}/*", regex_escape(prefix)), "/".to_owned()),
        false => (
            format!("^{}", regex_escape(prefix)),
            substitution(replacement),
        ),
    };
    matcher::RegexMatchAndSubstitute {
        pattern: Some(wire::regex(&pattern)),
        substitution,
    }
}

fn substitution(path: &str) -> String {
    path.replace('\\', "\\\\")
}

fn regex_escape(text: &str) -> String {
    let is_plain = |character: char| {
        character.is_ascii_alphanumeric() || !character.is_ascii() || "/_-~".contains(character)
    };
    text.chars().fold(String::new(), |mut escaped, character| {
        if !is_plain(character) {
            escaped.push('\\');
        }
        escaped.push(character);
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_replaced_by_the_root_leaves_one_slash() {
        let rewrite = prefix_of_path("/v1.0", "/");

        assert_eq!(rewrite.pattern.unwrap().regex, r"^/v1\.0/*");
        assert_eq!(rewrite.substitution, "/");
    }
}
