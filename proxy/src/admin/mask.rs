//! `mask` of `/config_dump`: which fields are shown, as the paths of a field mask.

use serde_json::{Map, Value};

/// Fields by the segments of their paths. Where an object is among those of a list, a path goes on in each of them.
#[derive(Debug)]
pub struct Mask {
    paths: Vec<Vec<String>>,
}

impl Mask {
    /// From `a.b,c`.
    pub fn parse(text: &str) -> Self {
        let paths = text.split(',').filter(|path| !path.is_empty());
        let segments = |path: &str| path.split('.').map(str::to_owned).collect();
        Self {
            paths: paths.map(segments).collect(),
        }
    }

    /// What of this object is shown; none where no path leads to any of it. The type of a message stays.
    pub fn of(&self, object: &Value) -> Option<Value> {
        let paths: Vec<_> = self.paths.iter().map(Vec::as_slice).collect();
        trimmed(object, &paths)
    }
}

fn trimmed(value: &Value, paths: &[&[String]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    match value {
        Value::Object(fields) => trimmed_object(fields, paths),
        Value::Array(values) => {
            let kept: Vec<_> = values
                .iter()
                .filter_map(|each| trimmed(each, paths))
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => None,
    }
}

fn trimmed_object(fields: &Map<String, Value>, paths: &[&[String]]) -> Option<Value> {
    let mut kept = Map::new();
    for (name, value) in fields {
        let within: Vec<_> = paths
            .iter()
            .filter_map(|path| path.split_first())
            .filter(|(first, _)| *first == name)
            .map(|(_, rest)| rest)
            .collect();
        if !within.is_empty()
            && let Some(value) = trimmed(value, &within)
        {
            kept.insert(name.clone(), value);
        }
    }
    if kept.is_empty() {
        return None;
    }
    if let Some(kind) = fields.get("@type") {
        kept.insert("@type".into(), kind.clone());
    }
    Some(Value::Object(kept))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_paths_lead_to_is_shown_with_its_type() {
        let dump = json!({
            "@type": "ClustersConfigDump",
            "version_info": "7",
            "static_clusters": [
                {"cluster": {"@type": "Cluster", "name": "a", "type": "EDS"}, "last_updated": "now"},
                {"last_updated": "now"},
            ],
        });

        let shown = Mask::parse("static_clusters.cluster.name,nothing").of(&dump);

        assert_eq!(
            shown,
            Some(json!({
                "@type": "ClustersConfigDump",
                "static_clusters": [{"cluster": {"@type": "Cluster", "name": "a"}}],
            }))
        );
        assert_eq!(Mask::parse("bootstrap.node").of(&dump), None);
        assert_eq!(Mask::parse("version_info.more").of(&dump), None);
    }
}
