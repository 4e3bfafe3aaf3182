//! Route tables and requests, made up: the table selects what a reader of the specification would.
//!
//! The second opinion below is slow and simple on purpose: it looks at every domain and every rule, byte by byte.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Choices;
use crate::config::matching::{HeaderMatch, HeaderTest, RequestLine, Subject, TextMatch, TextTest};
use crate::config::metadata::Metadata;
use crate::config::percent::Percent;
use crate::config::route::conditions::{CertificateMatch, CookieMatch, TlsRequirement};
use crate::config::route::{
    Domain, Forward, PathMatch, QueryMatch, QueryTest, Route, RouteAction, RouteConfig, RouteMatch,
    VirtualHost,
};
use crate::snapshot::routes::{RequestFacts, RouteTable};

/// Few, so that they often are the same.
const HOSTS: [&str; 9] = ["a", "b", ".", "A", ":", "80", "[::1]", "x", "é"];
const LOWER: [&str; 8] = ["a", "b", ".", "a.", ".b", ":", "80", "x"];
const PATHS: [&str; 10] = ["/", "a", "b", "A", "/a", ";", "%2f", "é", ".", "//"];
const QUERIES: [&str; 6] = ["?", "&", "=", "a", "b", "A"];
const VALUES: [&str; 6] = ["a", "A", "b", "1", "-", ""];
const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-a"),
    HeaderName::from_static("x-b"),
    HeaderName::from_static("x-forwarded-proto"),
];
const METHODS: [&str; 3] = ["GET", "POST", "CONNECT"];

/// Both opinions are the same.
pub(super) fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let config = Arc::new(config(&mut choices));
    let table = RouteTable::new(Arc::clone(&config));
    let metadata = Metadata::new();
    for _ in 0..4 {
        let made = Request::new(&mut choices);
        let facts = RequestFacts {
            line: RequestLine {
                method: made.method,
                path: &made.path,
                authority: &made.authority,
                scheme: "http",
            },
            headers: &made.headers,
            drawn: made.drawn,
            is_authenticated: made.is_authenticated,
            metadata: &metadata,
        };
        let selected = table.select(&facts);
        let selected = selected.map(|one| (&*one.host.name, &*one.route.name));
        assert_eq!(
            selected,
            expected(&config, &made),
            "{made:?} in {config:#?}"
        );
    }
}

#[derive(Debug)]
struct Request {
    method: &'static str,
    authority: String,
    path: String,
    headers: HeaderMap,
    drawn: u32,
    is_authenticated: bool,
}

impl Request {
    fn new(choices: &mut Choices<'_>) -> Self {
        let mut headers = HeaderMap::new();
        for _ in 0..choices.below(4) {
            let name = choices.one(&HEADERS).clone();
            let value = *choices.one(&["a", "A", "b", "1", "-7", "https", "ab"]);
            headers.append(name, HeaderValue::from_static(value));
        }
        for _ in 0..choices.below(3) {
            let value = *choices.one(&["a=b", "a=\"b\"; b=a", " b = a;a=", "a", "a=1;a=b", ";"]);
            headers.append("cookie", HeaderValue::from_static(value));
        }
        if choices.is() {
            let value = *choices.one(&[
                "application/grpc",
                "application/grpc+a",
                "application/grpcx",
            ]);
            headers.insert("content-type", HeaderValue::from_static(value));
        }
        Request {
            method: METHODS[choices.below(METHODS.len())],
            authority: choices.text(&HOSTS, 5),
            path: choices.text(&PATHS, 6) + &choices.text(&QUERIES, 8),
            headers,
            drawn: choices.u32(),
            is_authenticated: choices.is(),
        }
    }
}

fn config(choices: &mut Choices<'_>) -> RouteConfig {
    let mut hosts = choices.several(4, host);
    for (index, host) in hosts.iter_mut().enumerate() {
        host.name = format!("host {index}").into();
        for (index, route) in host.routes.iter_mut().enumerate() {
            route.name = format!("route {index}").into();
        }
    }
    RouteConfig {
        ignore_port: choices.is(),
        ignore_path_parameters: choices.is(),
        ..RouteConfig::new("fuzzed", hosts)
    }
}

fn host(choices: &mut Choices<'_>) -> VirtualHost {
    let domains = choices.several(3, domain);
    let routes = choices.several(4, route);
    let tls = [
        TlsRequirement::None,
        TlsRequirement::External,
        TlsRequirement::All,
    ];
    let tls = tls[choices.seldom(3)];
    VirtualHost {
        tls,
        ..VirtualHost::new("", domains, routes)
    }
}

fn domain(choices: &mut Choices<'_>) -> Domain {
    let text = choices.text(&LOWER, 4).into();
    match choices.below(4) {
        0 => Domain::Any,
        1 => Domain::Exact(text),
        2 => Domain::Suffix(text),
        _ => Domain::Prefix(text),
    }
}

fn route(choices: &mut Choices<'_>) -> Route {
    let action = RouteAction::Forward(Arc::new(Forward::to("c")));
    let path = choices.text(&PATHS, 4).into();
    let path = match choices.seldom(4) {
        0 => PathMatch::Prefix(path),
        1 => PathMatch::Exact(path),
        2 => PathMatch::SegmentPrefix(path),
        _ => PathMatch::Connect,
    };
    let shares = [Percent::ALL, Percent::of(50), Percent::ZERO];
    let matches = RouteMatch {
        path,
        ignore_case: choices.is(),
        headers: choices.several(2, header),
        query: choices.several(2, parameter),
        grpc: choices.seldom(2) == 1,
        share: shares[choices.seldom(3)],
        certificate: certificate(choices),
        metadata: vec![],
        cookies: choices.several(1, cookie),
    };
    Route::new("", matches, action)
}

fn certificate(choices: &mut Choices<'_>) -> CertificateMatch {
    let mut wanted = || [None, Some(true), Some(false)][choices.seldom(3)];
    CertificateMatch {
        presented: wanted(),
        validated: wanted(),
    }
}

fn text_match(choices: &mut Choices<'_>) -> TextMatch {
    let text = choices.text(&VALUES, 2).into();
    let test = match choices.below(4) {
        0 => TextTest::Exact(text),
        1 => TextTest::Prefix(text),
        2 => TextTest::Suffix(text),
        _ => TextTest::Contains(text),
    };
    TextMatch {
        test,
        ignore_case: choices.is(),
    }
}

fn header(choices: &mut Choices<'_>) -> HeaderMatch {
    let subject = match choices.below(4) {
        0 => Subject::Method,
        1 => Subject::Path,
        _ => Subject::Header(choices.one(&HEADERS).clone()),
    };
    let test = match choices.below(3) {
        0 => HeaderTest::Present,
        1 => HeaderTest::Value(text_match(choices)),
        _ => HeaderTest::Range { start: -7, end: 2 },
    };
    HeaderMatch {
        subject,
        test,
        invert: choices.is(),
        missing_is_empty: choices.is(),
    }
}

fn parameter(choices: &mut Choices<'_>) -> QueryMatch {
    let name = (*choices.one(&["a", "b"])).into();
    let test = match choices.below(3) {
        0 => QueryTest::Present,
        1 => QueryTest::Absent,
        _ => QueryTest::Value(text_match(choices)),
    };
    QueryMatch { name, test }
}

fn cookie(choices: &mut Choices<'_>) -> CookieMatch {
    CookieMatch {
        name: (*choices.one(&["a", "b"])).into(),
        value: text_match(choices),
        invert: choices.is(),
    }
}

/// The second opinion.
fn expected<'c>(config: &'c RouteConfig, request: &Request) -> Option<(&'c str, &'c str)> {
    let host = expected_host(config, request)?;
    let has = |name: &str, value: &str| request.headers.get(name).is_some_and(|is| is == value);
    let is_tls = has("x-forwarded-proto", "https");
    if host.tls != TlsRequirement::None && !is_tls {
        return Some((&host.name, "require_tls"));
    }
    let (path, query) = match request.path.find('?') {
        Some(at) => (&request.path[..at], &request.path[at + 1..]),
        None => (&request.path[..], ""),
    };
    let path = match path.find(';') {
        Some(at) if config.ignore_path_parameters => &path[..at],
        _ => path,
    };
    let mut routes = host.routes.iter();
    let found = routes.find(|route| is_expected(&route.matches, path, query, request))?;
    Some((&host.name, &found.name))
}

/// Exact before suffix before prefix before any; the longest of each, the first of equals.
fn expected_host<'c>(config: &'c RouteConfig, request: &Request) -> Option<&'c VirtualHost> {
    let mut authority = request.authority.to_ascii_lowercase();
    if config.ignore_port {
        let colon = authority.rfind(':');
        if let Some(colon) = colon.filter(|colon| !authority[*colon..].contains(']')) {
            authority.truncate(colon);
        }
    }
    let mut best: Option<((u8, usize), &VirtualHost)> = None;
    for host in &config.virtual_hosts {
        for domain in &host.domains {
            let (is_match, rank) = match domain {
                Domain::Any => (true, (0, 0)),
                Domain::Exact(name) => (authority == **name, (3, 0)),
                Domain::Suffix(suffix) => (
                    authority.len() > suffix.len() && authority.ends_with(&**suffix),
                    (2, suffix.len()),
                ),
                Domain::Prefix(prefix) => (
                    authority.len() > prefix.len() && authority.starts_with(&**prefix),
                    (1, prefix.len()),
                ),
            };
            if is_match && best.is_none_or(|(known, _)| rank > known) {
                best = Some((rank, host));
            }
        }
    }
    best.map(|(_, host)| host)
}

fn is_expected(wanted: &RouteMatch, path: &str, query: &str, request: &Request) -> bool {
    let grpc = request.headers.get("content-type");
    let is_grpc = grpc.is_some_and(|is| is == "application/grpc" || is == "application/grpc+a");
    let certificate = wanted.certificate;
    is_expected_path(wanted, path, request.method == "CONNECT")
        && wanted
            .headers
            .iter()
            .all(|test| is_expected_header(test, request))
        && wanted
            .query
            .iter()
            .all(|test| is_expected_parameter(test, query))
        && (is_grpc || !wanted.grpc)
        && request.drawn % 1_000_000 < wanted.share.millionths()
        && certificate
            .presented
            .is_none_or(|is| is == request.is_authenticated)
        && certificate
            .validated
            .is_none_or(|is| is == request.is_authenticated)
        && wanted
            .cookies
            .iter()
            .all(|test| is_expected_cookie(test, &request.headers))
}

fn is_expected_path(wanted: &RouteMatch, path: &str, is_connect: bool) -> bool {
    let folded = |text: &str| match wanted.ignore_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let path = folded(path);
    match &wanted.path {
        PathMatch::Connect => is_connect,
        _ if is_connect => false,
        PathMatch::Prefix(prefix) => path.starts_with(&folded(prefix)),
        PathMatch::Exact(exact) => path == folded(exact),
        PathMatch::SegmentPrefix(prefix) => {
            path == folded(prefix) || path.starts_with(&(folded(prefix) + "/"))
        }
        PathMatch::Regex(_) => unreachable!("none is made"),
    }
}

fn is_expected_text(wanted: &TextMatch, text: &str) -> bool {
    let folded = |text: &str| match wanted.ignore_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let text = folded(text);
    match &wanted.test {
        TextTest::Exact(wanted) => text == folded(wanted),
        TextTest::Prefix(wanted) => text.starts_with(&folded(wanted)),
        TextTest::Suffix(wanted) => text.ends_with(&folded(wanted)),
        TextTest::Contains(wanted) => text.contains(&folded(wanted)),
        TextTest::Regex(_) => unreachable!("none is made"),
    }
}

fn is_expected_header(wanted: &HeaderMatch, request: &Request) -> bool {
    let mut values: Vec<&str> = match &wanted.subject {
        Subject::Method => vec![request.method],
        Subject::Path => vec![&request.path],
        Subject::Header(name) => {
            let values = request.headers.get_all(name).iter();
            values.map(|value| value.to_str().expect("text")).collect()
        }
        Subject::Authority | Subject::Scheme => unreachable!("none is made"),
    };
    let is_missing = values.is_empty() && !wanted.missing_is_empty;
    if wanted.test == HeaderTest::Present {
        return is_missing == wanted.invert;
    }
    if is_missing {
        return false;
    }
    if values.is_empty() {
        values.push("");
    }
    let passes = values.iter().any(|value| match &wanted.test {
        HeaderTest::Present => true,
        HeaderTest::Value(test) => is_expected_text(test, value),
        HeaderTest::Range { start, end } => value
            .parse::<i64>()
            .is_ok_and(|number| *start <= number && number < *end),
    });
    passes != wanted.invert
}

fn is_expected_parameter(wanted: &QueryMatch, query: &str) -> bool {
    let mut value = None;
    for pair in query.split('&').rev() {
        let mut parts = pair.splitn(2, '=');
        if parts.next() == Some(&wanted.name) {
            value = Some(parts.next().unwrap_or(""));
        }
    }
    match &wanted.test {
        QueryTest::Present => value.is_some(),
        QueryTest::Absent => value.is_none(),
        QueryTest::Value(test) => value.is_some_and(|value| is_expected_text(test, value)),
    }
}

fn is_expected_cookie(wanted: &CookieMatch, headers: &HeaderMap) -> bool {
    let mut value = None;
    let lines: Vec<_> = headers.get_all("cookie").iter().collect();
    for line in lines.into_iter().rev() {
        for pair in line.to_str().expect("text").split(';').rev() {
            let mut parts = pair.trim().splitn(2, '=');
            if parts.next() == Some(&wanted.name) {
                value = parts.next().or(value);
            }
        }
    }
    let value = value.map(|value| match value.len() >= 2 && value.starts_with('"') {
        true if value.ends_with('"') => &value[1..value.len() - 1],
        _ => value,
    });
    value.is_some_and(|value| is_expected_text(&wanted.value, value) != wanted.invert)
}
