//! Which resources a checked one points at.

use std::sync::Arc;

use crate::config::http::{HttpConfig, RouteSource};
use crate::config::listener::{ListenerConfig, NetworkFilter, TcpTarget};
use crate::config::route::{Forward, RouteAction, RouteConfig, Target, WeightedClusters};

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

/// The clusters that a listener's own routes forward and copy to, where they are to be there before it.
pub fn known_clusters(listener: &ListenerConfig) -> Vec<Arc<str>> {
    let inline = http(listener).filter_map(|http| match &http.routes {
        RouteSource::Inline(routes) if routes.has_known_clusters => Some(routes),
        RouteSource::Inline(_) | RouteSource::Discovered(_) => None,
    });
    inline
        .flat_map(|routes| [route_clusters(routes), mirror_clusters(routes)])
        .flatten()
        .collect()
}

/// The clusters that routes forward to. Copies go to clusters, too, but no request waits for them.
pub fn route_clusters(routes: &RouteConfig) -> Vec<Arc<str>> {
    forwards(routes)
        .flat_map(|forward| match &forward.target {
            Target::Cluster(cluster) => vec![Arc::clone(cluster)],
            Target::Weighted(clusters) => weighted(clusters),
            // Known only with the request.
            Target::Header(_) => vec![],
        })
        .collect()
}

/// The clusters that copies go to.
fn mirror_clusters(routes: &RouteConfig) -> Vec<Arc<str>> {
    let mirrors = forwards(routes).flat_map(|forward| &forward.mirrors);
    let named = mirrors.filter_map(|mirror| mirror.cluster.fixed());
    named.map(Arc::clone).collect()
}

fn forwards(routes: &RouteConfig) -> impl Iterator<Item = &Forward> {
    let hosts = routes.virtual_hosts.iter();
    hosts
        .flat_map(|host| &host.routes)
        .filter_map(|route| match &route.action {
            RouteAction::Forward(forward) => Some(&**forward),
            RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
        })
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
