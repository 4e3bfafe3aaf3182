//! One resource of xDS, encoded, with the version that its bytes have.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Name;
use serde::Serialize;
use sha2::{Digest, Sha256};
use weft_proto::{Any, any, type_urls};

/// The types of resources, in the order in which they are made before they are used: a cluster before its
/// endpoints, both before the listeners and routes that lead to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// SDS.
    Secret,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

impl ResourceKind {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Secret,
        Self::Listener,
        Self::Route,
    ];

    /// The URL of the type.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_urls::CLUSTER,
            Self::Endpoints => type_urls::CLUSTER_LOAD_ASSIGNMENT,
            Self::Secret => type_urls::SECRET,
            Self::Listener => type_urls::LISTENER,
            Self::Route => type_urls::ROUTE_CONFIGURATION,
        }
    }

    /// The type with that URL, where it is one that is served.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Whether a response of the state-of-the-world protocol names all there is, so that what is missing is gone.
    pub fn is_full_state(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

/// An encoded resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// The hash of its bytes: equal resources have equal versions, whichever revision they come from.
    pub version: Arc<str>,
    /// The message.
    pub body: Any,
}

impl Resource {
    /// Encodes a message.
    pub fn encode<T: Name>(name: &str, message: &T) -> Self {
        let body = any::pack(message);
        let digest = Sha256::digest(&body.value);
        let version: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            name: name.into(),
            version: version.into(),
            body,
        }
    }
}

/// Resources of one type, by name.
pub type ResourceMap = BTreeMap<Arc<str>, Arc<Resource>>;

/// Adds a resource to a map.
pub fn insert(resources: &mut ResourceMap, resource: Resource) {
    resources.insert(Arc::clone(&resource.name), Arc::new(resource));
}

/// The map of the revision before, where nothing in it differs; so that who compares maps compares pointers.
pub fn reuse(new: ResourceMap, old: Option<&Arc<ResourceMap>>) -> Arc<ResourceMap> {
    match old {
        Some(old) if is_same(&new, old) => Arc::clone(old),
        _ => Arc::new(new),
    }
}

fn is_same(one: &ResourceMap, other: &ResourceMap) -> bool {
    let versions = |map: &ResourceMap| -> Vec<(Arc<str>, Arc<str>)> {
        map.values()
            .map(|resource| (Arc::clone(&resource.name), Arc::clone(&resource.version)))
            .collect()
    };
    one.len() == other.len() && versions(one) == versions(other)
}

#[cfg(test)]
mod tests {
    use weft_proto::envoy::config::cluster::v3::Cluster;

    use super::*;

    fn cluster(name: &str, alt: &str) -> Resource {
        let message = Cluster {
            name: name.to_owned(),
            alt_stat_name: alt.to_owned(),
            ..Cluster::default()
        };
        Resource::encode(name, &message)
    }

    #[test]
    fn a_version_changes_with_the_content_only() {
        assert_eq!(cluster("a", "x").version, cluster("a", "x").version);
        assert_ne!(cluster("a", "x").version, cluster("a", "y").version);
    }

    #[test]
    fn an_equal_map_is_the_old_one() {
        let map = |alt| {
            let mut map = ResourceMap::new();
            insert(&mut map, cluster("a", alt));
            map
        };
        let old = Arc::new(map("x"));

        assert!(Arc::ptr_eq(&reuse(map("x"), Some(&old)), &old));
        assert!(!Arc::ptr_eq(&reuse(map("y"), Some(&old)), &old));
    }

    #[test]
    fn every_kind_is_found_by_its_url() {
        for kind in ResourceKind::ALL {
            assert_eq!(ResourceKind::from_type_url(kind.type_url()), Some(kind));
        }
        assert_eq!(
            ResourceKind::from_type_url("type.googleapis.com/other"),
            None
        );
    }
}
