//! Routes made ready for matching: which virtual host, and which of its rules, a request belongs to.
//!
//! Pure: the same code serves requests and explains them. Nothing is allocated for a request whose host is in
//! lower case and whose headers come once.

pub mod matches;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, StatusCode};

use self::matches::{is_match, split_query};
use crate::config::Named;
use crate::config::headers::HeaderMutations;
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
    exact: Named<usize>,
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
            exact: Named::default(),
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

    /// As in Envoy, a port is whatever follows the last colon that is outside of brackets.
    fn without_port<'a>(&self, authority: &'a str) -> &'a str {
        if !self.config.ignore_port {
            return authority;
        }
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => authority,
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
        keeps_port: true,
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
    let is_formatted = HeaderMutations::is_formatted;
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
mod tests;
