//! Which route is selected for a request.

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
