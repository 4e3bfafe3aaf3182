//! Routes made ready for matching: which virtual host, and which of its rules, a request belongs to.
//!
//! Pure: the same code serves requests and explains them. Nothing is allocated for a request whose host is in
//! lower case and whose headers come once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;

use crate::config::matching::{RequestLine, starts_with_ignoring_case};
use crate::config::route::{
    Domain, PathMatch, QueryMatch, Route, RouteConfig, RouteMatch, VirtualHost,
};

/// Routes with an index over their domains.
#[derive(Debug)]
pub struct RouteTable {
    config: Arc<RouteConfig>,
    exact: HashMap<Arc<str>, usize>,
    /// The longest first.
    suffixes: Vec<(Arc<str>, usize)>,
    /// The longest first.
    prefixes: Vec<(Arc<str>, usize)>,
    any: Option<usize>,
}

/// What of a request decides where it goes.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Method, path with query, authority, scheme.
    pub line: RequestLine<'a>,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Drawn evenly from all of `u32`, for routes that take a share.
    pub drawn: u32,
}

/// Where a request belongs.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    /// The host.
    pub host: &'a VirtualHost,
    /// The rule.
    pub route: &'a Route,
}

impl RouteTable {
    /// Indexes a configuration. Of a domain that comes twice the first counts.
    pub fn new(config: Arc<RouteConfig>) -> Self {
        let mut table = RouteTable {
            exact: HashMap::new(),
            suffixes: vec![],
            prefixes: vec![],
            any: None,
            config,
        };
        let config = Arc::clone(&table.config);
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                table.index(domain, index);
            }
        }
        let longest_first = |pair: &(Arc<str>, usize)| std::cmp::Reverse(pair.0.len());
        table.suffixes.sort_by_key(longest_first);
        table.prefixes.sort_by_key(longest_first);
        table
    }

    /// As configured.
    pub fn config(&self) -> &Arc<RouteConfig> {
        &self.config
    }

    /// Where a request belongs, if anywhere.
    pub fn select(&self, request: &RequestFacts<'_>) -> Option<Selected<'_>> {
        let host = self.host(request.line.authority)?;
        let (path, query) = split_query(request.line.path);
        let route = host
            .routes
            .iter()
            .find(|route| is_match(&route.matches, path, query, request))?;
        Some(Selected { host, route })
    }

    fn index(&mut self, domain: &Domain, host: usize) {
        match domain {
            Domain::Any => self.any = self.any.or(Some(host)),
            Domain::Exact(name) => {
                self.exact.entry(Arc::clone(name)).or_insert(host);
            }
            Domain::Suffix(suffix) => self.suffixes.push((Arc::clone(suffix), host)),
            Domain::Prefix(prefix) => self.prefixes.push((Arc::clone(prefix), host)),
        }
    }

    fn host(&self, authority: &str) -> Option<&VirtualHost> {
        let is_only_any =
            self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty();
        let index = if is_only_any {
            self.any
        } else {
            self.indexed(&lower_case(self.without_port(authority)))
        };
        self.config.virtual_hosts.get(index?)
    }

    fn indexed(&self, authority: &str) -> Option<usize> {
        let is_proper = |affix: &Arc<str>| affix.len() < authority.len();
        let by_suffix = || {
            let found = |(suffix, _): &&(Arc<str>, usize)| {
                is_proper(suffix) && authority.ends_with(&**suffix)
            };
            self.suffixes.iter().find(found).map(|(_, host)| *host)
        };
        let by_prefix = || {
            let found = |(prefix, _): &&(Arc<str>, usize)| {
                is_proper(prefix) && authority.starts_with(&**prefix)
            };
            self.prefixes.iter().find(found).map(|(_, host)| *host)
        };
        self.exact
            .get(authority)
            .copied()
            .or_else(by_suffix)
            .or_else(by_prefix)
            .or(self.any)
    }

    fn without_port<'a>(&self, authority: &'a str) -> &'a str {
        if self.config.ignore_port {
            without_port(authority)
        } else {
            authority
        }
    }
}

/// The host of an authority; an IPv6 address keeps its brackets.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

fn split_query(path: &str) -> (&str, &str) {
    path.split_once('?').unwrap_or((path, ""))
}

/// Whether a rule is for a request.
pub fn is_for(matches: &RouteMatch, request: &RequestFacts<'_>) -> bool {
    let (path, query) = split_query(request.line.path);
    is_match(matches, path, query, request)
}

fn is_match(matches: &RouteMatch, path: &str, query: &str, request: &RequestFacts<'_>) -> bool {
    is_path_match(matches, path)
        && matches
            .headers
            .iter()
            .all(|header| header.is_match(request.line, request.headers))
        && matches
            .query
            .iter()
            .all(|parameter| is_query_match(parameter, query))
        && (!matches.grpc || is_grpc(request.headers))
        && matches.share.covers(request.drawn)
}

fn is_path_match(matches: &RouteMatch, path: &str) -> bool {
    let starts_with = |prefix: &str| match matches.ignore_case {
        true => starts_with_ignoring_case(path, prefix),
        false => path.starts_with(prefix),
    };
    match &matches.path {
        PathMatch::Prefix(prefix) => starts_with(prefix),
        PathMatch::Exact(exact) if matches.ignore_case => path.eq_ignore_ascii_case(exact),
        PathMatch::Exact(exact) => path == &**exact,
        PathMatch::SegmentPrefix(prefix) => {
            starts_with(prefix)
                && (path.len() == prefix.len() || path.as_bytes()[prefix.len()] == b'/')
        }
        PathMatch::Regex(pattern) => pattern.is_match(path),
    }
}

/// Whether a query has a parameter as wanted.
pub fn is_query_match(wanted: &QueryMatch, query: &str) -> bool {
    query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .find(|(name, _)| *name == &*wanted.name)
        .is_some_and(|(_, value)| {
            wanted
                .value
                .as_ref()
                .is_none_or(|test| test.is_match(value))
        })
}

/// Whether headers are of a gRPC message.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes)
        .and_then(|value| value.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::matching::{Pattern, TextMatch};
    use crate::config::percent::Percent;
    use crate::config::route::{Forward, RouteAction};

    fn route(name: &str, matches: RouteMatch) -> Route {
        Route {
            name: name.into(),
            matches,
            action: RouteAction::Forward(Arc::new(Forward::to(name))),
            request_headers: Default::default(),
            response_headers: Default::default(),
            filters: Default::default(),
        }
    }

    fn path(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            ..RouteMatch::prefix("/")
        }
    }

    fn host(name: &str, domains: Vec<Domain>, routes: Vec<Route>) -> VirtualHost {
        VirtualHost {
            name: name.into(),
            domains,
            routes,
            retry: None,
            request_headers: Default::default(),
            response_headers: Default::default(),
            filters: Default::default(),
        }
    }

    fn table(virtual_hosts: Vec<VirtualHost>) -> RouteTable {
        RouteTable::new(Arc::new(RouteConfig {
            name: "test".into(),
            virtual_hosts,
            request_headers: Default::default(),
            response_headers: Default::default(),
            ignore_port: true,
        }))
    }

    fn selected(table: &RouteTable, authority: &str, path: &str) -> Option<(String, String)> {
        let facts = RequestFacts {
            line: RequestLine {
                method: "GET",
                path,
                authority,
                scheme: "http",
            },
            headers: &HeaderMap::new(),
            drawn: 0,
        };
        let selected = table.select(&facts)?;
        Some((
            selected.host.name.to_string(),
            selected.route.name.to_string(),
        ))
    }

    #[test]
    fn the_closest_domain_wins() {
        let all = || vec![route("r", RouteMatch::prefix("/"))];
        let table = table(vec![
            host("any", vec![Domain::Any], all()),
            host("prefix", vec![Domain::Prefix("a.".into())], all()),
            host("short", vec![Domain::Suffix(".com".into())], all()),
            host("long", vec![Domain::Suffix(".example.com".into())], all()),
            host("exact", vec![Domain::Exact("a.example.com".into())], all()),
        ]);
        let host = |authority| selected(&table, authority, "/").expect("a host").0;

        assert_eq!(host("A.example.com:8080"), "exact");
        assert_eq!(host("b.example.com"), "long");
        assert_eq!(host("b.com"), "short");
        assert_eq!(host("a.net"), "prefix");
        assert_eq!(host("b.net"), "any");
        assert_eq!(host(".com"), "any");
    }

    #[test]
    fn the_first_matching_route_wins() {
        let table = table(vec![host(
            "any",
            vec![Domain::Any],
            vec![
                route("exact", path(PathMatch::Exact("/a".into()))),
                route(
                    "regex",
                    path(PathMatch::Regex(Pattern::new("/id/[0-9]+").expect("valid"))),
                ),
                route("segment", path(PathMatch::SegmentPrefix("/seg".into()))),
                route("prefix", path(PathMatch::Prefix("/s".into()))),
            ],
        )]);
        let route = |path| selected(&table, "x", path).map(|(_, route)| route);

        assert_eq!(route("/a?x=1").as_deref(), Some("exact"));
        assert_eq!(route("/id/42").as_deref(), Some("regex"));
        assert_eq!(route("/seg").as_deref(), Some("segment"));
        assert_eq!(route("/seg/x").as_deref(), Some("segment"));
        assert_eq!(route("/segment").as_deref(), Some("prefix"));
        assert_eq!(route("/id/x"), None);
    }

    #[test]
    fn query_parameters_are_matched_by_name_and_value() {
        let matches = RouteMatch {
            query: vec![
                QueryMatch {
                    name: "user".into(),
                    value: Some(TextMatch::exact("jason")),
                },
                QueryMatch {
                    name: "debug".into(),
                    value: None,
                },
            ],
            ..RouteMatch::prefix("/")
        };
        let table = table(vec![host(
            "any",
            vec![Domain::Any],
            vec![route("r", matches)],
        )]);

        assert!(selected(&table, "x", "/?a=b&user=jason&debug").is_some());
        assert!(selected(&table, "x", "/?user=jason").is_none());
        assert!(selected(&table, "x", "/?user=jasons&debug").is_none());
    }

    #[test]
    fn a_route_may_take_a_share_only() {
        let matches = RouteMatch {
            share: Percent::ZERO,
            ..RouteMatch::prefix("/")
        };
        let table = table(vec![host(
            "any",
            vec![Domain::Any],
            vec![route("r", matches)],
        )]);

        assert!(selected(&table, "x", "/").is_none());
    }

    #[test]
    fn grpc_is_told_by_the_content_type() {
        let is_grpc_of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", http::HeaderValue::from_static(value));
            is_grpc(&headers)
        };

        assert!(is_grpc_of("application/grpc"));
        assert!(is_grpc_of("application/grpc+proto"));
        assert!(!is_grpc_of("application/grpc-web"));
        assert!(!is_grpc_of("application/json"));
    }
}
