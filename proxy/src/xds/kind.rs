//! The kinds of resource that the proxy subscribes to.

use weft_proto::type_urls;

use super::dialogue::Variant;

/// A kind of resource, in the order in which subscriptions are sent and changes are applied: what is pointed at
/// before what points at it (xDS protocol, "eventual consistency considerations").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
    /// SDS.
    Secret,
    /// RTDS.
    Runtime,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Kind; 6] = [
        Kind::Cluster,
        Kind::Endpoints,
        Kind::Listener,
        Kind::Routes,
        Kind::Secret,
        Kind::Runtime,
    ];

    /// Its type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Cluster => type_urls::CLUSTER,
            Kind::Endpoints => type_urls::CLUSTER_LOAD_ASSIGNMENT,
            Kind::Listener => type_urls::LISTENER,
            Kind::Routes => type_urls::ROUTE_CONFIGURATION,
            Kind::Secret => type_urls::SECRET,
            Kind::Runtime => type_urls::RUNTIME,
        }
    }

    /// The kind of a type URL.
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.type_url() == type_url)
    }

    /// Its word in metrics and messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster",
            Kind::Endpoints => "endpoints",
            Kind::Listener => "listener",
            Kind::Routes => "routes",
            Kind::Secret => "secret",
            Kind::Runtime => "runtime",
        }
    }

    /// The method of its own service, in the state of the world.
    fn stream_method(self) -> &'static str {
        match self {
            Kind::Cluster => "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
            Kind::Endpoints => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
            }
            Kind::Listener => "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
            Kind::Routes => "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
            Kind::Secret => "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
            Kind::Runtime => "/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime",
        }
    }

    /// The method of its own service, by changes alone.
    fn delta_method(self) -> &'static str {
        match self {
            Kind::Cluster => "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
            Kind::Endpoints => "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
            Kind::Listener => "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
            Kind::Routes => "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
            Kind::Secret => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
            Kind::Runtime => "/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime",
        }
    }

    /// Whether the server decides which resources there are; of the others we name those we need.
    pub fn is_wildcard(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
    }
}

/// What one stream is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// These kinds, of the aggregated service.
    Aggregated(Vec<Kind>),
    /// One kind, of its own service.
    Of(Kind),
}

impl Scope {
    /// The kinds that are asked for.
    pub fn kinds(&self) -> &[Kind] {
        match self {
            Scope::Aggregated(kinds) => kinds,
            Scope::Of(kind) => std::slice::from_ref(kind),
        }
    }

    /// Its word in messages.
    pub fn word(&self) -> &'static str {
        match self {
            Scope::Aggregated(_) => "all",
            Scope::Of(kind) => kind.word(),
        }
    }

    /// The method that opens its stream.
    pub fn path(&self, variant: Variant) -> &'static str {
        use Variant::{Delta, StateOfTheWorld};
        match (self, variant) {
            (Scope::Aggregated(_), StateOfTheWorld) => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
            (Scope::Aggregated(_), Delta) => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
            (Scope::Of(kind), StateOfTheWorld) => kind.stream_method(),
            (Scope::Of(kind), Delta) => kind.delta_method(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_type_url() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::of("type.googleapis.com/google.protobuf.Empty"), None);
    }
}
