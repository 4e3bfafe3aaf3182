//! Which resources a checked one points at.

use std::sync::Arc;

use crate::config::http::{HttpConfig, RouteSource};
use crate::config::listener::{ListenerConfig, NetworkFilter, TcpTarget};
use crate::config::route::{RouteAction, RouteConfig, Target, WeightedClusters};

/// The route configurations that a listener discovers.
pub fn routes(listener: &ListenerConfig) -> impl Iterator<Item = &Arc<str>> {
    http(listener).filter_map(|http| match &http.routes {
        RouteSource::Discovered(name) => Some(name),
        RouteSource::Inline(_) => None,
    })
}

/// The clusters that a listener names itself, in its TCP proxies and its own routes.
pub fn listener_clusters(listener: &ListenerConfig) -> Vec<Arc<str>> {
    let tcp = listener.chains().flat_map(|chain| match &chain.filter {
        NetworkFilter::Tcp(tcp) => match &tcp.target {
            TcpTarget::Cluster(cluster) => vec![Arc::clone(cluster)],
            TcpTarget::Weighted(clusters) => weighted(clusters),
        },
        NetworkFilter::Http(_) => vec![],
    });
    let inline = http(listener).flat_map(|http| match &http.routes {
        RouteSource::Inline(routes) => route_clusters(routes),
        RouteSource::Discovered(_) => vec![],
    });
    tcp.chain(inline).collect()
}

/// The clusters that a listener's own routes forward to, where they are to be there before it.
pub fn known_clusters(listener: &ListenerConfig) -> Vec<Arc<str>> {
    let inline = http(listener).filter_map(|http| match &http.routes {
        RouteSource::Inline(routes) if routes.has_known_clusters => Some(route_clusters(routes)),
        RouteSource::Inline(_) | RouteSource::Discovered(_) => None,
    });
    inline.flatten().collect()
}

/// The clusters that routes forward to. Copies go to clusters, too, but no request waits for them.
pub fn route_clusters(routes: &RouteConfig) -> Vec<Arc<str>> {
    let forwards = routes
        .virtual_hosts
        .iter()
        .flat_map(|host| &host.routes)
        .filter_map(|route| match &route.action {
            RouteAction::Forward(forward) => Some(forward),
            RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
        });
    forwards
        .flat_map(|forward| match &forward.target {
            Target::Cluster(cluster) => vec![Arc::clone(cluster)],
            Target::Weighted(clusters) => weighted(clusters),
            // Known only with the request.
            Target::Header(_) => vec![],
        })
        .collect()
}

fn http(listener: &ListenerConfig) -> impl Iterator<Item = &Arc<HttpConfig>> {
    listener.chains().filter_map(|chain| match &chain.filter {
        NetworkFilter::Http(http) => Some(http),
        NetworkFilter::Tcp(_) => None,
    })
}

fn weighted(clusters: &WeightedClusters) -> Vec<Arc<str>> {
    clusters
        .clusters()
        .iter()
        .filter_map(|each| each.target.fixed().cloned())
        .collect()
}
