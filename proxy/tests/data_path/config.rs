//! Configurations, put together as tests need them.

use std::net::SocketAddr;
use std::sync::Arc;

use weft_proxy::config::cluster::{ClusterConfig, Discovery, UpstreamProtocol};
use weft_proxy::config::endpoints::{EndpointConfig, EndpointsConfig, LocalityConfig};
use weft_proxy::config::http::{HttpConfig, RouteSource};
use weft_proxy::config::listener::{
    Binding, ChainMatch, Direction, FilterChain, ListenerConfig, NetworkFilter, OverloadPolicy,
    TcpConfig, TcpTarget,
};
use weft_proxy::config::route::{
    Domain, Forward, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost,
};
use weft_proxy::config::{Configuration, Network, Workload};

/// The name of the listener that tests talk to.
pub(crate) const LISTENER: &str = "test";

/// A listener on a port of the system's choice, with one chain for everything.
pub(crate) fn listener(filter: NetworkFilter) -> ListenerConfig {
    ListenerConfig {
        name: LISTENER.into(),
        addresses: vec![([127, 0, 0, 1], 0).into()],
        sockets: vec![],
        is_transparent: false,
        binding: Binding::Bound,
        network: Network::Sandbox,
        direction: Direction::Outbound,
        use_original_destination: false,
        proxy_header: None,
        original_source: None,
        filter_chains: vec![],
        default_chain: Some(chain(filter)),
        inspect_http: false,
        inspect_tls: false,
        stat_name: None,
        max_connections: None,
        overload: OverloadPolicy::Heeded,
        access_logs: Arc::new([]),
    }
}

/// A chain for everything.
pub(crate) fn chain(filter: NetworkFilter) -> FilterChain {
    FilterChain {
        name: "".into(),
        matches: ChainMatch::default(),
        tls: None,
        gates: vec![],
        filter,
    }
}

/// HTTP with routes of its own.
pub(crate) fn http(routes: Vec<Route>) -> HttpConfig {
    HttpConfig::new("test", RouteSource::Inline(Arc::new(route_config(routes))))
}

pub(crate) fn filter(http: HttpConfig) -> NetworkFilter {
    NetworkFilter::Http(Arc::new(http))
}

pub(crate) fn route_config(routes: Vec<Route>) -> RouteConfig {
    RouteConfig {
        ignore_port: true,
        ..RouteConfig::new(
            "routes",
            vec![VirtualHost::new("all", vec![Domain::Any], routes)],
        )
    }
}

pub(crate) fn route(prefix: &str, action: RouteAction) -> Route {
    Route::new(prefix, RouteMatch::prefix(prefix), action)
}

/// Everything goes to a cluster.
pub(crate) fn all_to(forward: Forward) -> Vec<Route> {
    vec![route("/", RouteAction::Forward(Arc::new(forward)))]
}

pub(crate) fn tcp(cluster: &str) -> NetworkFilter {
    NetworkFilter::Tcp(Arc::new(TcpConfig {
        stat_prefix: "test".into(),
        target: TcpTarget::Cluster(cluster.into()),
        buffer_bytes: 64 * 1024,
        idle_timeout: None,
        longest: None,
        subset: None,
        tunnel: None,
        hashes_source: false,
        access_logs: Arc::new([]),
    }))
}

/// A cluster with these endpoints, which speaks what its callers speak.
pub(crate) fn cluster(name: &str, addresses: &[SocketAddr]) -> ClusterConfig {
    ClusterConfig {
        protocol: UpstreamProtocol::Downstream,
        ..ClusterConfig::new(
            name,
            Discovery::Static(Arc::new(endpoints(name, addresses))),
        )
    }
}

pub(crate) fn endpoints(name: &str, addresses: &[SocketAddr]) -> EndpointsConfig {
    let workload = Arc::new(Workload {
        name: name.into(),
        namespace: "default".into(),
        pod: "pod".into(),
        service: name.into(),
    });
    let endpoints = addresses
        .iter()
        .map(|address| EndpointConfig {
            workload: Arc::clone(&workload),
            ..EndpointConfig::at(*address)
        })
        .collect();
    EndpointsConfig {
        name: name.into(),
        policy: Default::default(),
        localities: vec![LocalityConfig {
            locality: Default::default(),
            priority: 0,
            weight: 0,
            endpoints,
        }],
    }
}

pub(crate) fn configuration(
    listeners: impl IntoIterator<Item = ListenerConfig>,
    clusters: impl IntoIterator<Item = ClusterConfig>,
) -> Configuration {
    let mut configuration = Configuration::default();
    for listener in listeners {
        configuration
            .listeners
            .insert(Arc::clone(&listener.name), Arc::new(listener));
    }
    for cluster in clusters {
        configuration
            .clusters
            .insert(Arc::clone(&cluster.name), Arc::new(cluster));
    }
    configuration
}
