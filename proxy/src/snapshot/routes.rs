//! Routes made ready for matching: which virtual host, and which of its rules, a request belongs to.
//!
//! Pure: the same code serves requests and explains them. Nothing is allocated for a request whose host is in
//! lower case and whose headers come once.

pub mod matches;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, StatusCode};

use self::matches::{is_match, split_query};
use crate::config::headers::{HeaderMutations, HeaderText};
use crate::config::matching::RequestLine;
use crate::config::metadata::Metadata;
use crate::config::route::conditions::TlsRequirement;
use crate::config::route::{
    Domain, Redirect, Route, RouteAction, RouteConfig, RouteMatch, Target, VirtualHost,
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
    /// Whether what it adds to responses depends on their requests.
    pub answers_by_request: bool,
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
    /// Whether the client has shown a certificate, which is valid then.
    pub is_authenticated: bool,
    /// What filters have found out.
    pub metadata: &'a Metadata,
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
            answers_by_request: answers_by_request(&config),
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
        let named = self.config.host_header.as_ref();
        let named = named.and_then(|name| request.headers.get(name)?.to_str().ok());
        let host = self.host(named.unwrap_or(request.line.authority))?;
        if requires_tls(host, request.headers) {
            let route = &*TO_TLS;
            return Some(Selected { host, route });
        }
        let (mut path, query) = split_query(request.line.path);
        if self.config.ignore_path_parameters {
            path = path.split(';').next().unwrap_or_default();
        }
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

/// Where those are sent who should have come by TLS.
static TO_TLS: LazyLock<Route> = LazyLock::new(|| {
    let redirect = Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        scheme: Some("https".into()),
        host: None,
        port: None,
        path: None,
        strip_query: false,
    };
    let action = RouteAction::Redirect(redirect);
    Route::new("require_tls", RouteMatch::prefix("/"), action)
});

fn requires_tls(host: &VirtualHost, headers: &HeaderMap) -> bool {
    let is = |name: &str, wanted: &str| headers.get(name).is_some_and(|value| value == wanted);
    let is_tls = || is("x-forwarded-proto", "https");
    match host.tls {
        TlsRequirement::None => false,
        TlsRequirement::All => !is_tls(),
        TlsRequirement::External => !is("x-envoy-internal", "true") && !is_tls(),
    }
}

fn answers_by_request(config: &RouteConfig) -> bool {
    let is_formatted = |headers: &HeaderMutations| {
        let mut changes = headers.changes.iter();
        changes.any(|change| matches!(change.text, HeaderText::Formatted(_)))
    };
    let of_route = |route: &Route| {
        let weighted = match &route.action {
            RouteAction::Forward(forward) => match &forward.target {
                Target::Weighted(clusters) => clusters.clusters(),
                _ => &[],
            },
            _ => &[],
        };
        is_formatted(&route.response_headers)
            || weighted
                .iter()
                .any(|cluster| is_formatted(&cluster.response_headers))
    };
    is_formatted(&config.response_headers)
        || config
            .virtual_hosts
            .iter()
            .any(|host| is_formatted(&host.response_headers) || host.routes.iter().any(of_route))
}

/// The host of an authority; an IPv6 address keeps its brackets.
pub fn without_port(authority: &str) -> &str {
    split_port(authority).map_or(authority, |(host, _)| host)
}

/// Host and port of an authority, where there is a port.
pub fn split_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_port.then_some((host, port))
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::matching::{Pattern, TextMatch};
    use crate::config::percent::Percent;
    use crate::config::route::conditions::{CertificateMatch, CookieMatch};
    use crate::config::route::{Forward, PathMatch, QueryMatch, QueryTest};

    fn route(name: &str, matches: RouteMatch) -> Route {
        Route::new(
            name,
            matches,
            RouteAction::Forward(Arc::new(Forward::to(name))),
        )
    }

    fn path(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            ..RouteMatch::prefix("/")
        }
    }

    fn host(name: &str, domains: Vec<Domain>, routes: Vec<Route>) -> VirtualHost {
        VirtualHost::new(name, domains, routes)
    }

    fn table(virtual_hosts: Vec<VirtualHost>) -> RouteTable {
        RouteTable::new(Arc::new(RouteConfig {
            ignore_port: true,
            ..RouteConfig::new("test", virtual_hosts)
        }))
    }

    fn facts<'a>(authority: &'a str, path: &'a str, headers: &'a HeaderMap) -> RequestFacts<'a> {
        static NONE: Metadata = Metadata::new();
        RequestFacts {
            line: RequestLine {
                method: "GET",
                path,
                authority,
                scheme: "http",
            },
            headers,
            drawn: 0,
            is_authenticated: false,
            metadata: &NONE,
        }
    }

    fn selected(table: &RouteTable, authority: &str, path: &str) -> Option<(String, String)> {
        let headers = HeaderMap::new();
        let facts = facts(authority, path, &headers);
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
                    test: QueryTest::Value(TextMatch::exact("jason")),
                },
                QueryMatch {
                    name: "debug".into(),
                    test: QueryTest::Present,
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

    fn one(matches: RouteMatch) -> RouteTable {
        table(vec![host(
            "any",
            vec![Domain::Any],
            vec![route("r", matches)],
        )])
    }

    #[test]
    fn connect_matches_where_it_is_asked_for_and_nowhere_else() {
        let headers = HeaderMap::new();
        let mut connect = facts("a:443", "/", &headers);
        connect.line.method = "CONNECT";

        let by_prefix = one(RouteMatch::prefix("/"));
        let by_method = one(path(PathMatch::Connect));

        assert!(by_prefix.select(&connect).is_none());
        assert!(by_method.select(&connect).is_some());
        assert!(by_method.select(&facts("a", "/", &headers)).is_none());
    }

    #[test]
    fn a_certificate_a_cookie_and_metadata_can_be_asked_for() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "a=1; user=\"jane\"".parse().expect("a value"));
        let mut request = facts("a", "/", &headers);
        let certificate = one(RouteMatch {
            certificate: CertificateMatch {
                presented: Some(true),
                validated: None,
            },
            ..RouteMatch::prefix("/")
        });
        let cookie = |value: &str, invert| {
            one(RouteMatch {
                cookies: vec![CookieMatch {
                    name: "user".into(),
                    value: TextMatch::exact(value),
                    invert,
                }],
                ..RouteMatch::prefix("/")
            })
        };

        assert!(certificate.select(&request).is_none());
        assert!(cookie("jane", false).select(&request).is_some());
        assert!(cookie("joe", false).select(&request).is_none());
        assert!(cookie("joe", true).select(&request).is_some());
        request.is_authenticated = true;
        assert!(certificate.select(&request).is_some());
    }

    #[test]
    fn path_parameters_are_left_out_where_asked() {
        let config = RouteConfig {
            ignore_path_parameters: true,
            ..RouteConfig::new(
                "test",
                vec![host(
                    "any",
                    vec![Domain::Any],
                    vec![route("r", path(PathMatch::Exact("/a".into())))],
                )],
            )
        };
        let ignoring = RouteTable::new(Arc::new(config));
        let minding = one(path(PathMatch::Exact("/a".into())));

        assert!(selected(&ignoring, "x", "/a;v=1?b=c").is_some());
        assert!(selected(&minding, "x", "/a;v=1?b=c").is_none());
    }

    #[test]
    fn those_who_should_have_come_by_tls_are_sent_there() {
        let host = |tls| VirtualHost {
            tls,
            ..host("h", vec![Domain::Any], vec![])
        };
        let all = table(vec![host(TlsRequirement::All)]);
        let external = table(vec![host(TlsRequirement::External)]);
        let sent = |table: &RouteTable, headers: &HeaderMap| {
            let selected = table.select(&facts("a", "/", headers));
            selected.is_some_and(|selected| &*selected.route.name == "require_tls")
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-envoy-internal", "true".parse().expect("a value"));

        assert!(sent(&all, &headers));
        assert!(!sent(&external, &headers));
        assert!(sent(&external, &HeaderMap::new()));
        headers.insert("x-forwarded-proto", "https".parse().expect("a value"));
        assert!(!sent(&all, &headers));
    }

    #[test]
    fn another_header_may_choose_the_host() {
        let named = |name: &str| {
            host(
                name,
                vec![Domain::Exact(name.into())],
                vec![route(name, RouteMatch::prefix("/"))],
            )
        };
        let table = RouteTable::new(Arc::new(RouteConfig {
            host_header: Some(http::HeaderName::from_static("x-host")),
            ..RouteConfig::new("test", vec![named("a"), named("b")])
        }));
        let mut headers = HeaderMap::new();
        headers.insert("x-host", "b".parse().expect("a value"));

        let chosen = table.select(&facts("a", "/", &headers)).expect("a route");
        assert_eq!(&*chosen.host.name, "b");
        assert_eq!(
            &*table
                .select(&facts("a", "/", &HeaderMap::new()))
                .expect("a route")
                .host
                .name,
            "a"
        );
    }

    #[test]
    fn an_address_of_version_6_keeps_its_brackets() {
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("a:"), "a:");
    }
}
