//! Where a routed request goes, and what it looks like when it gets there.

use std::sync::Arc;

use http::HeaderValue;
use http::uri::PathAndQuery;

use super::failure::Failure;
use super::headers::Head;
use crate::cluster::{Cluster, random};
use crate::config::cluster::UpstreamProtocol;
use crate::config::route::{
    Forward, HostRewrite, PathMatch, PathRewrite, RouteMatch, Target, WeightedCluster,
};
use crate::snapshot::Snapshot;
use crate::snapshot::routes::{RouteTable, Selected};
use crate::telemetry::report::Protocol;
use crate::upstream::HttpVersion;

/// The cluster of a request, and what is configured for requests that go there.
pub(super) struct Destination<'a> {
    pub(super) cluster: Arc<str>,
    pub(super) weighted: Option<&'a WeightedCluster>,
}

/// Chooses the cluster's name.
pub(super) fn choose<'a>(forward: &'a Forward, head: &Head) -> Result<Destination<'a>, Failure> {
    match &forward.target {
        Target::Cluster(name) => Ok(Destination {
            cluster: Arc::clone(name),
            weighted: None,
        }),
        Target::Weighted(clusters) => {
            let weighted = clusters.choose(random::draw());
            Ok(Destination {
                cluster: Arc::clone(&weighted.cluster),
                weighted: Some(weighted),
            })
        }
        Target::Header(name) => {
            let named = head.headers.get(name).and_then(|value| value.to_str().ok());
            Ok(Destination {
                cluster: named.unwrap_or_default().into(),
                weighted: None,
            })
        }
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

/// What a request wants of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To be carried.
    Ordinary,
    /// To become something else, which is a thing of HTTP/1.1.
    Upgrade,
}

/// What is spoken upstream.
pub(super) fn version(cluster: &Cluster, downstream: Protocol, kind: Kind) -> HttpVersion {
    match (cluster.config.protocol, downstream) {
        _ if kind == Kind::Upgrade => HttpVersion::Http1,
        (UpstreamProtocol::Http1, _) => HttpVersion::Http1,
        (UpstreamProtocol::Http2, _) | (UpstreamProtocol::Downstream, Protocol::Http2) => {
            HttpVersion::Http2
        }
        (UpstreamProtocol::Downstream, _) => HttpVersion::Http1,
    }
}

/// Carries out what the route says of path, host and headers; the innermost part goes first, as in Envoy.
pub(super) fn rewrite(
    head: &mut Head,
    routes: &RouteTable,
    selected: Selected<'_>,
    destination: &Destination<'_>,
    forward: &Forward,
) -> Result<(), Failure> {
    if let Some(weighted) = destination.weighted {
        weighted.request_headers.apply(&mut head.headers);
    }
    selected.route.request_headers.apply(&mut head.headers);
    selected.host.request_headers.apply(&mut head.headers);
    routes.config().request_headers.apply(&mut head.headers);
    if let Some(rewrite) = &forward.path {
        let original = head.path().to_owned();
        let path = rewritten(&original, rewrite, &selected.route.matches);
        head.path = path
            .parse::<PathAndQuery>()
            .map_err(|_| Failure::Rewrite { path: path.into() })?;
        if let Ok(original) = HeaderValue::try_from(original) {
            head.headers.insert("x-envoy-original-path", original);
        }
    }
    match &forward.host {
        Some(HostRewrite::Literal(host)) => head.authority = Some(host.clone()),
        Some(HostRewrite::Header(name)) => {
            if let Some(host) = head.headers.get(name) {
                head.authority = Some(host.clone());
            }
        }
        // Once the endpoint is known.
        Some(HostRewrite::Endpoint) | None => {}
    }
    Ok(())
}

/// The new path; the query stays.
pub(super) fn rewritten(path: &str, rewrite: &PathRewrite, matches: &RouteMatch) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut new = match rewrite {
        PathRewrite::Full(full) => full.to_string(),
        PathRewrite::Regex(substitution) => substitution.apply(path).into_owned(),
        PathRewrite::Prefix(prefix) => {
            let matched = match &matches.path {
                PathMatch::Prefix(matched)
                | PathMatch::Exact(matched)
                | PathMatch::SegmentPrefix(matched) => matched.len(),
                PathMatch::Regex(_) => 0,
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
    fn a_pattern_replaces_in_the_path_only() {
        let substitution = Substitution::new("^/([a-z]+)/", "/new/$1/").expect("valid");
        let any = RouteMatch::prefix("/");

        let path = rewritten("/a/b?x=/c/", &PathRewrite::Regex(substitution), &any);

        assert_eq!(path, "/new/a/b?x=/c/");
    }
}
