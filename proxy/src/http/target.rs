//! Where a routed request goes, and what it looks like when it gets there.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::completion::Completion;
use super::failure::Failure;
use super::formatting;
use super::headers::{self, Head};
use crate::cluster::Cluster;
use crate::config::cluster::UpstreamProtocol;
use crate::config::http::RouterOptions;
use crate::config::matching::Subject;
use crate::config::route::{
    ClusterName, Forward, HostRewrite, PathMatch, PathRewrite, RouteMatch, Target, WeightedCluster,
};
use crate::random;
use crate::snapshot::Snapshot;
use crate::snapshot::routes::{RouteTable, Selected};
use crate::telemetry::report::Protocol;
use crate::upstream::HttpVersion;

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// The cluster of a request, and what is configured for requests that go there.
pub(super) struct Destination<'a> {
    pub(super) cluster: Arc<str>,
    pub(super) weighted: Option<&'a WeightedCluster>,
}

/// Chooses the cluster's name.
pub(super) fn choose<'a>(forward: &'a Forward, head: &Head) -> Result<Destination<'a>, Failure> {
    let (cluster, weighted) = match &forward.target {
        Target::Cluster(name) => (Arc::clone(name), None),
        Target::Header(name) => (told_by(head, name).into(), None),
        Target::Weighted(clusters) => {
            let asked = clusters.drawing_header();
            let asked = asked.and_then(|name| header_text(&head.headers, name).parse().ok());
            let weighted = clusters.choose(asked.unwrap_or_else(|| random::draw().into()));
            (named(&weighted.target, &head.headers), Some(weighted))
        }
    };
    Ok(Destination { cluster, weighted })
}

/// The name of a cluster; empty where its header is missing.
pub(super) fn named(name: &ClusterName, headers: &HeaderMap) -> Arc<str> {
    match name {
        ClusterName::Fixed(name) => Arc::clone(name),
        ClusterName::Header(header) => header_text(headers, header).into(),
    }
}

/// The value of a header; `host` is the authority, wherever it was said.
fn told_by<'a>(head: &'a Head, name: &HeaderName) -> &'a str {
    match *name == http::header::HOST {
        true => head.authority(),
        false => header_text(&head.headers, name),
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// A header of a request, or a part of its line.
fn value_of(subject: &Subject, head: &Head) -> Option<HeaderValue> {
    match subject {
        Subject::Header(name) => head.headers.get(name).cloned(),
        part => HeaderValue::from_str(part.of_line(head.line())?).ok(),
    }
}

/// The cluster itself.
pub(super) fn cluster(
    snapshot: &Snapshot,
    destination: &Destination<'_>,
    forward: &Forward,
) -> Result<Arc<Cluster>, Failure> {
    let cluster = snapshot.clusters.get(&destination.cluster).cloned();
    cluster.ok_or_else(|| Failure::NoCluster {
        cluster: Arc::clone(&destination.cluster),
        status: forward.cluster_not_found,
    })
}

/// What is spoken upstream.
pub(super) fn version(cluster: &Cluster, downstream: Protocol) -> HttpVersion {
    match (cluster.config.protocol, downstream) {
        (UpstreamProtocol::Http1, _) => HttpVersion::Http1,
        (UpstreamProtocol::Http2, _) | (UpstreamProtocol::Downstream, Protocol::Http2) => {
            HttpVersion::Http2
        }
        (UpstreamProtocol::Downstream, _) => HttpVersion::Http1,
    }
}

/// What the rewriting of a request depends on.
pub(super) struct Rewriting<'a> {
    pub(super) routes: &'a RouteTable,
    pub(super) selected: Selected<'a>,
    pub(super) destination: &'a Destination<'a>,
    pub(super) forward: &'a Forward,
    pub(super) completion: &'a Completion,
    pub(super) router: RouterOptions,
}

impl Rewriting<'_> {
    /// Carries out what the route says of headers, then of host and path.
    pub(super) fn apply(&self, head: &mut Head) -> Result<(), Failure> {
        self.change_headers(head);
        self.rewrite_host(head);
        let Some(rewrite) = &self.forward.path else {
            return Ok(());
        };
        let original = head.path().to_owned();
        let path = match rewrite {
            PathRewrite::Formatted(template) => {
                let path = formatting::request_text(template, head, self.completion);
                rewritten(
                    &original,
                    &PathRewrite::Full(path.into()),
                    &self.selected.route.matches,
                )
            }
            rewrite => rewritten(&original, rewrite, &self.selected.route.matches),
        };
        head.path = path
            .parse::<PathAndQuery>()
            .map_err(|_| Failure::Rewrite { path: path.into() })?;
        if !self.router.suppresses_envoy_headers
            && let Ok(original) = HeaderValue::try_from(original)
        {
            head.headers.insert(ORIGINAL_PATH, original);
        }
        Ok(())
    }

    /// The innermost part goes first, unless it is to have the last word; as in Envoy.
    fn change_headers(&self, head: &mut Head) {
        let config = self.routes.config();
        let weighted = self.destination.weighted;
        let all = [
            weighted.map(|weighted| &weighted.request_headers),
            Some(&self.selected.route.request_headers),
            Some(&self.selected.host.request_headers),
            Some(&config.request_headers),
        ];
        for mutations in in_order(all, config.innermost_wins) {
            formatting::change_request(mutations, head, self.completion);
        }
    }

    fn rewrite_host(&self, head: &mut Head) {
        let weighted = self.destination.weighted;
        if let Some(host) = weighted.and_then(|weighted| weighted.host.as_ref()) {
            return self.set_host(head, host.clone());
        }
        let host = match &self.forward.host {
            Some(HostRewrite::Literal(host)) => Some(host.clone()),
            Some(HostRewrite::Header(subject)) => value_of(subject, head),
            Some(HostRewrite::Path(substitution)) => {
                let path = head.path().split('?').next().unwrap_or_default();
                HeaderValue::from_str(&substitution.apply(path)).ok()
            }
            Some(HostRewrite::Formatted(template)) => {
                let host = formatting::request_text(template, head, self.completion);
                HeaderValue::try_from(host)
                    .ok()
                    .filter(|host| !host.is_empty())
            }
            // Once the endpoint is known.
            Some(HostRewrite::Endpoint) | None => None,
        };
        if let Some(host) = host {
            self.set_host(head, host);
        }
    }

    fn set_host(&self, head: &mut Head, host: HeaderValue) {
        let before = head.authority.replace(host);
        let keeps = !self.router.suppresses_envoy_headers;
        let forwarded = self.forward.appends_forwarded_host;
        headers::remember_host(&mut head.headers, before.as_ref(), keeps, forwarded);
    }
}

/// Parts of the configuration, the innermost first or last.
pub(super) fn in_order<T>(
    innermost_first: [Option<T>; 4],
    innermost_wins: bool,
) -> impl Iterator<Item = T> {
    let mut all = innermost_first;
    if innermost_wins {
        all.reverse();
    }
    all.into_iter().flatten()
}

/// The new path; the query stays.
pub(super) fn rewritten(path: &str, rewrite: &PathRewrite, matches: &RouteMatch) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut new = match rewrite {
        PathRewrite::Full(full) => full.to_string(),
        // Who knows what operators stand for has put it in already.
        PathRewrite::Formatted(_) => path.to_owned(),
        PathRewrite::Regex(substitution) => substitution.apply(path).into_owned(),
        PathRewrite::Prefix(prefix) => {
            let matched = match &matches.path {
                PathMatch::Prefix(matched)
                | PathMatch::Exact(matched)
                | PathMatch::SegmentPrefix(matched) => matched.len(),
                // The whole of it has matched.
                PathMatch::Regex(_) | PathMatch::Connect => path.len(),
            };
            join(
                prefix,
                path.get(matched..).unwrap_or_default(),
                &matches.path,
            )
        }
    };
    if new.is_empty() || !new.starts_with('/') {
        new.insert(0, '/');
    }
    if let Some(query) = query {
        new.push('?');
        new.push_str(query);
    }
    new
}

/// Segments stay segments: exactly one slash between them.
fn join(prefix: &str, rest: &str, matched: &PathMatch) -> String {
    if matches!(matched, PathMatch::SegmentPrefix(_)) && prefix.ends_with('/') {
        let prefix = prefix.trim_end_matches('/');
        return format!("{prefix}{rest}");
    }
    format!("{prefix}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::matching::Substitution;

    fn matching(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            ..RouteMatch::prefix("/")
        }
    }

    #[test]
    fn a_prefix_is_replaced_and_the_query_stays() {
        let prefix = matching(PathMatch::Prefix("/api/".into()));
        let segments = matching(PathMatch::SegmentPrefix("/api".into()));
        let to = |text: &str| PathRewrite::Prefix(text.into());

        assert_eq!(rewritten("/api/a?x=1", &to("/v2/"), &prefix), "/v2/a?x=1");
        assert_eq!(rewritten("/api/a", &to("/"), &segments), "/a");
        assert_eq!(rewritten("/api", &to("/"), &segments), "/");
        assert_eq!(rewritten("/api", &to("/v2"), &segments), "/v2");
    }

    #[test]
    fn what_a_pattern_matched_is_the_whole_path() {
        use crate::config::matching::Pattern;
        let regex = matching(PathMatch::Regex(Pattern::new("/a/.*").expect("valid")));

        assert_eq!(
            rewritten("/a/b?x=1", &PathRewrite::Prefix("/new".into()), &regex),
            "/new?x=1"
        );
    }

    #[test]
    fn a_pattern_replaces_in_the_path_only() {
        let substitution = Substitution::new("^/([a-z]+)/", "/new/$1/").expect("valid");
        let any = RouteMatch::prefix("/");

        let path = rewritten("/a/b?x=/c/", &PathRewrite::Regex(substitution), &any);

        assert_eq!(path, "/new/a/b?x=/c/");
    }
}
