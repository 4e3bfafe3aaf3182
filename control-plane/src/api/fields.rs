//! Sets of fields, as server-side apply counts who owns what.
//!
//! A field is the path to a leaf: `f:spec`, `f:replicas`. Elements of lists that are maps are told apart by their keys
//! (`k:{"name":"web"}`), those of sets by their value (`v:"x"`); all other lists are leaves. On the wire a set is a
//! tree, Kubernetes' `FieldsV1`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::kinds::lists::default_key;
use crate::kinds::schema;

/// The way to a leaf.
pub(super) type FieldPath = Vec<String>;

/// Leaves.
pub(super) type FieldSet = BTreeSet<FieldPath>;

/// Fields that nobody owns: they are the store's, or name the object.
const NOBODYS: [&[&str]; 12] = [
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:uid"],
    &["f:metadata", "f:resourceVersion"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:deletionTimestamp"],
    &["f:metadata", "f:deletionGracePeriodSeconds"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:selfLink"],
];

/// Whether somebody can own a field.
pub(super) fn is_ownable(path: &[String]) -> bool {
    !NOBODYS.iter().any(|nobodys| {
        path.len() >= nobodys.len() && path.iter().zip(*nobodys).all(|(one, other)| one == other)
    })
}

/// The leaves of a value, and what is there.
pub(super) fn leaves<'a>(
    value: &'a Value,
    shape: &'static Value,
) -> BTreeMap<FieldPath, &'a Value> {
    let mut found = BTreeMap::new();
    walk(value, shape, &mut Vec::new(), &mut found);
    found.retain(|path, _| is_ownable(path));
    found
}

fn walk<'a>(
    value: &'a Value,
    shape: &'static Value,
    path: &mut FieldPath,
    found: &mut BTreeMap<FieldPath, &'a Value>,
) {
    static PRESENT: Value = Value::Null;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                path.push(format!("f:{name}"));
                walk(field, schema::field(shape, name), path, found);
                path.pop();
            }
        }
        Value::Array(items) if schema::map_keys(shape).is_some() && !items.is_empty() => {
            let keys = schema::map_keys(shape).unwrap_or_default();
            for item in items {
                path.push(key_element(item, &keys));
                found.insert(path.clone(), &PRESENT);
                walk(item, schema::items(shape), path, found);
                path.pop();
            }
        }
        Value::Array(items) if schema::is_set(shape) && !items.is_empty() => {
            for item in items {
                path.push(format!("v:{item}"));
                found.insert(path.clone(), &PRESENT);
                path.pop();
            }
        }
        leaf => {
            if !path.is_empty() {
                found.insert(path.clone(), leaf);
            }
        }
    }
}

/// The element of a path that names an item of a list: `k:` and its keys in order.
pub(super) fn key_element(item: &Value, keys: &[&str]) -> String {
    let keys: BTreeMap<&str, Value> = keys
        .iter()
        .filter_map(|key| {
            let value = match &item[*key] {
                Value::Null => json!(default_key(key)?),
                value => value.clone(),
            };
            Some((*key, value))
        })
        .collect();
    format!("k:{}", json!(keys))
}

/// Removes a leaf, and what is empty without it.
pub(super) fn remove(value: &mut Value, path: &[String], shape: &'static Value) {
    let Some((element, rest)) = path.split_first() else {
        return;
    };
    if let (Some(name), Value::Object(fields)) = (element.strip_prefix("f:"), &mut *value) {
        if let Some(field) = fields.get_mut(name) {
            let is_leaf = rest.is_empty();
            if !is_leaf {
                remove(field, rest, schema::field(shape, name));
            }
            if is_leaf || is_empty(field) {
                fields.shift_remove(name);
            }
        }
    } else if let Value::Array(items) = value {
        remove_item(items, element, rest, shape);
    }
}

fn remove_item(items: &mut Vec<Value>, element: &str, rest: &[String], shape: &'static Value) {
    let keys = schema::map_keys(shape).unwrap_or_default();
    let is_meant = |item: &Value| {
        if element.starts_with("k:") {
            key_element(item, &keys) == element
        } else {
            format!("v:{item}") == element
        }
    };
    if rest.is_empty() {
        items.retain(|item| !is_meant(item));
        return;
    }
    for item in items.iter_mut().filter(|item| is_meant(item)) {
        remove(item, rest, schema::items(shape));
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The set as `FieldsV1`.
pub(super) fn encode(set: &FieldSet) -> Value {
    let mut tree = Value::Object(Map::new());
    for path in set {
        let mut node = &mut tree;
        for element in path {
            node = &mut node[element.as_str()];
            if node.is_null() {
                *node = Value::Object(Map::new());
            }
        }
    }
    // What has children and is itself a member says so with a dot.
    for path in set {
        let node = path
            .iter()
            .fold(&mut tree, |node, element| &mut node[element.as_str()]);
        if let Value::Object(children) = node
            && !children.is_empty()
        {
            children.insert(".".to_owned(), json!({}));
        }
    }
    tree
}

/// A set out of `FieldsV1`; what is not of its shape is left out.
pub(super) fn decode(tree: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    decode_into(tree, &mut Vec::new(), &mut set);
    set
}

fn decode_into(tree: &Value, path: &mut FieldPath, set: &mut FieldSet) {
    /// No field is deeper.
    const DEEPEST: usize = 64;
    let Some(children) = tree.as_object() else {
        return;
    };
    if (children.is_empty() || children.contains_key(".")) && !path.is_empty() {
        set.insert(path.clone());
    }
    if path.len() >= DEEPEST {
        return;
    }
    for (element, child) in children.iter().filter(|(element, _)| *element != ".") {
        path.push(element.clone());
        decode_into(child, path, set);
        path.pop();
    }
}

/// A path as messages write it: `.spec.template.spec.containers[name="web"].image`.
pub(super) fn display(path: &[String]) -> String {
    let mut text = String::new();
    for element in path {
        match element.split_once(':') {
            Some(("f", name)) => {
                text.push('.');
                text.push_str(name);
            }
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                text.push_str(&format!("[{}]", keys.join(",")));
            }
            Some((_, value)) => text.push_str(&format!("[={value}]")),
            None => text.push_str(element),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::DEPLOYMENT;

    fn deployment() -> Value {
        json!({
            "metadata": {"name": "web", "labels": {"app": "web"}, "finalizers": ["a"]},
            "spec": {
                "replicas": 2,
                "template": {"spec": {"containers": [
                    {"name": "web", "image": "web:1", "args": ["a", "b"]},
                ]}},
            },
        })
    }

    #[test]
    fn a_set_reads_back_as_it_was_written() {
        let value = deployment();
        let set: FieldSet = leaves(&value, schema::of(&DEPLOYMENT))
            .into_keys()
            .collect();

        let encoded = encode(&set);

        assert_eq!(decode(&encoded), set);
        let container =
            &encoded["f:spec"]["f:template"]["f:spec"]["f:containers"][r#"k:{"name":"web"}"#];
        assert_eq!(
            *container,
            json!({".": {}, "f:args": {}, "f:image": {}, "f:name": {}})
        );
        assert_eq!(
            encoded["f:metadata"]["f:finalizers"],
            json!({r#"v:"a""#: {}})
        );
        assert!(encoded["f:metadata"].get("f:name").is_none());
    }

    #[test]
    fn an_item_of_a_list_is_removed_by_its_key() {
        let mut value = deployment();
        let path: FieldPath = [
            "f:spec",
            "f:template",
            "f:spec",
            "f:containers",
            r#"k:{"name":"web"}"#,
        ]
        .map(str::to_owned)
        .to_vec();

        remove(&mut value, &path, schema::of(&DEPLOYMENT));

        assert_eq!(value["spec"], json!({"replicas": 2}));
    }

    #[test]
    fn fields_are_named_as_people_write_them() {
        let value = deployment();
        let texts: Vec<String> = leaves(&value, schema::of(&DEPLOYMENT))
            .keys()
            .map(|path| display(path))
            .collect();

        assert!(
            texts.contains(&r#".spec.template.spec.containers[name="web"].image"#.to_owned()),
            "{texts:?}"
        );
    }
}
