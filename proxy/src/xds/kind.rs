//! The kinds of resource that the proxy subscribes to.

use weft_proto::type_urls;

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
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Kind; 5] = [
        Kind::Cluster,
        Kind::Endpoints,
        Kind::Listener,
        Kind::Routes,
        Kind::Secret,
    ];

    /// Its type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Cluster => type_urls::CLUSTER,
            Kind::Endpoints => type_urls::CLUSTER_LOAD_ASSIGNMENT,
            Kind::Listener => type_urls::LISTENER,
            Kind::Routes => type_urls::ROUTE_CONFIGURATION,
            Kind::Secret => type_urls::SECRET,
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
        }
    }

    /// Whether the server decides which resources there are; of the others we name those we need.
    pub fn is_wildcard(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
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
