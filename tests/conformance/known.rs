//! The differences that are meant: the paragraphs of `docs/envoy-differences.md`, each under a heading with its key.

use std::collections::BTreeSet;
use std::path::Path;

pub(crate) struct KnownDifferences {
    keys: BTreeSet<String>,
}

impl KnownDifferences {
    /// Keys are the headings of the third level: ``### `key` ``.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("docs/envoy-differences.md");
        let keys = text
            .lines()
            .filter_map(|line| line.strip_prefix("### `")?.split('`').next())
            .map(ToOwned::to_owned)
            .collect();
        Self { keys }
    }

    pub(crate) fn contains(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }
}
