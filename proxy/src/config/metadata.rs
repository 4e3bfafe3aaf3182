//! Values that travel with a request from filter to filter: Envoy's dynamic metadata.

use std::sync::Arc;

use serde_json::{Map, Value};

/// Values by namespace, which is the name of the filter that put them there unless it was told another.
/// They are in the order of their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(Vec<(Arc<str>, Fields)>);

/// Values by key. What is the same for many requests they share.
pub type Fields = Arc<Map<String, Value>>;

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
        Metadata(Vec::new())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a value under a key of a namespace, in place of what is there.
    pub fn put(&mut self, namespace: &str, key: &str, value: Value) {
        let at = match self.find(namespace) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (namespace.into(), Fields::default()));
                at
            }
        };
        Arc::make_mut(&mut self.0[at].1).insert(key.to_owned(), value);
    }

    /// Puts all fields of an object into a namespace.
    pub fn merge(&mut self, namespace: &str, fields: Map<String, Value>) {
        self.share(&namespace.into(), &Arc::new(fields));
    }

    /// The same with fields that are shared: they are copied only where others are there already.
    pub fn share(&mut self, namespace: &Arc<str>, fields: &Fields) {
        match self.find(namespace) {
            Ok(at) => {
                let fields = fields.iter();
                let fields = fields.map(|(key, value)| (key.clone(), value.clone()));
                Arc::make_mut(&mut self.0[at].1).extend(fields);
            }
            Err(at) => {
                let fields = (Arc::clone(namespace), Arc::clone(fields));
                self.0.insert(at, fields);
            }
        }
    }

    /// Where a namespace is, or would be.
    fn find(&self, namespace: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| (**name).cmp(namespace))
    }

    /// The value at the end of a path of keys.
    pub fn at<'a>(
        &self,
        namespace: &str,
        path: impl IntoIterator<Item = &'a str>,
    ) -> Option<&Value> {
        let mut path = path.into_iter();
        let first = self.namespace(namespace)?.get(path.next()?)?;
        path.try_fold(first, |value, key| value.get(key))
    }

    /// All of a namespace.
    pub fn namespace(&self, namespace: &str) -> Option<&Map<String, Value>> {
        let at = self.find(namespace).ok()?;
        Some(&self.0[at].1)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, &Map<String, Value>)> {
        self.0.iter().map(|(name, fields)| (name, &**fields))
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

    #[test]
    fn fields_that_are_shared_stay_as_they_are() {
        let shared = Fields::new(Map::from_iter([("a".to_owned(), json!(1))]));
        let mut one = Metadata::default();
        one.share(&"rbac".into(), &shared);
        one.put("rbac", "b", json!(2));
        let mut other = Metadata::default();
        other.put("zone", "a", json!(0));
        other.put("rbac", "a", json!(0));
        other.share(&"rbac".into(), &shared);

        assert_eq!(shared.len(), 1);
        assert_eq!(one.at("rbac", ["b"]), Some(&json!(2)));
        assert_eq!(other.at("rbac", ["a"]), Some(&json!(1)));
        let names: Vec<_> = other.namespaces().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["rbac", "zone"]);
    }
}
