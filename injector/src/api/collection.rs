//! Where objects of a kind are found in the API.

use k8s_openapi::{NamespaceResourceScope, Resource};

/// The objects of one kind, in one namespace or in all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Collection {
    api_version: String,
    plural: String,
    namespace: Option<String>,
}

impl Collection {
    /// By names: `("apps/v1", "deployments")`. In all namespaces, or of a kind without them.
    pub fn new(api_version: impl Into<String>, plural: impl Into<String>) -> Self {
        Self {
            api_version: api_version.into(),
            plural: plural.into(),
            namespace: None,
        }
    }

    /// All objects of a type.
    pub fn all<K: Resource>() -> Self {
        Self::new(K::API_VERSION, K::URL_PATH_SEGMENT)
    }

    /// The objects of a type in a namespace.
    pub fn of<K: Resource<Scope = NamespaceResourceScope>>(namespace: &str) -> Self {
        Self::all::<K>().within(namespace)
    }

    /// The part of it in a namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// `/apis/apps/v1/namespaces/default/deployments`.
    pub fn path(&self) -> String {
        // The core group is the one without a name.
        let root = if self.api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        let api_version = &self.api_version;
        let plural = escape(&self.plural);
        match &self.namespace {
            Some(namespace) => {
                format!(
                    "/{root}/{api_version}/namespaces/{}/{plural}",
                    escape(namespace)
                )
            }
            None => format!("/{root}/{api_version}/{plural}"),
        }
    }

    /// The path of one object.
    pub fn object(&self, name: &str) -> String {
        format!("{}/{}", self.path(), escape(name))
    }
}

/// Percent-encodes all but what RFC 3986 §2.3 calls unreserved.
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Namespace, Pod};

    use super::*;

    #[test]
    fn the_core_group_has_another_root() {
        assert_eq!(
            Collection::of::<Pod>("shop").object("books-1"),
            "/api/v1/namespaces/shop/pods/books-1"
        );
        assert_eq!(
            Collection::of::<Deployment>("shop").path(),
            "/apis/apps/v1/namespaces/shop/deployments"
        );
        assert_eq!(Collection::all::<Namespace>().path(), "/api/v1/namespaces");
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        let path = Collection::of::<Pod>("shop").object("../../x?y");

        assert_eq!(path, "/api/v1/namespaces/shop/pods/..%2F..%2Fx%3Fy");
    }
}
