//! Paths of fields, as messages name them: `spec.rules[0].matches[1].path`.

use std::fmt;

/// The place of a field in an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A field at the top of the object.
    pub fn root(field: &str) -> Self {
        Self(field.to_owned())
    }

    /// The object itself.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A field of this one.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Self(name.to_owned());
        }
        // Keys of maps hold dots and slashes; they are written in brackets, as Kubernetes does.
        if name.contains(['.', '/']) {
            return self.key(name);
        }
        Self(format!("{}.{name}", self.0))
    }

    /// An entry of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// An element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

impl From<&Path> for String {
    fn from(path: &Path) -> Self {
        path.0.clone()
    }
}
