//! Values that travel with a request from filter to filter: Envoy's dynamic metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

/// Values by namespace, which is the name of the filter that put them there unless it was told another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(BTreeMap<Arc<str>, Map<String, Value>>);

/// Where a value of metadata is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataPath {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The keys on the way.
    pub path: Vec<Arc<str>>,
}

impl MetadataPath {
    /// The value there.
    pub fn of<'a>(&self, metadata: &'a Metadata) -> Option<&'a Value> {
        metadata.at(&self.namespace, self.path.iter().map(|key| &**key))
    }
}

impl Metadata {
    /// None.
    pub const fn new() -> Self {
        Metadata(BTreeMap::new())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a value under a key of a namespace, in place of what is there.
    pub fn put(&mut self, namespace: &str, key: &str, value: Value) {
        let fields = self.0.entry(namespace.into()).or_default();
        fields.insert(key.to_owned(), value);
    }

    /// Puts all fields of an object into a namespace.
    pub fn merge(&mut self, namespace: &str, fields: Map<String, Value>) {
        self.0.entry(namespace.into()).or_default().extend(fields);
    }

    /// The value at the end of a path of keys.
    pub fn at<'a>(
        &self,
        namespace: &str,
        path: impl IntoIterator<Item = &'a str>,
    ) -> Option<&Value> {
        let mut path = path.into_iter();
        let first = self.0.get(namespace)?.get(path.next()?)?;
        path.try_fold(first, |value, key| value.get(key))
    }

    /// All of a namespace.
    pub fn namespace(&self, namespace: &str) -> Option<&Map<String, Value>> {
        self.0.get(namespace)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, &Map<String, Value>)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_found_by_its_path() {
        let mut metadata = Metadata::default();
        metadata.put("jwt", "claims", json!({"sub": "a", "more": {"deep": 1}}));

        assert_eq!(
            metadata.at("jwt", ["claims", "more", "deep"]),
            Some(&json!(1))
        );
        assert_eq!(metadata.at("jwt", ["claims", "none"]), None);
        assert_eq!(metadata.at("other", ["claims"]), None);
        assert_eq!(metadata.at("jwt", []), None);
    }
}
