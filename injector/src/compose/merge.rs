//! Several files, and services that extend others, as one: by the merging rules of the Compose specification.
//!
//! First every short form is written out, so that there is one shape to merge: `environment` as a list becomes a
//! mapping, and so on. Then mappings are merged key by key, lists are appended, and single values replaced; commands are
//! lists that are replaced.

use super::document::{Key, Node, Value};
use super::error::ComposeError;

/// Lists that a later file replaces, rather than adds to.
const REPLACED: [&str; 3] = ["command", "entrypoint", "test"];

/// Puts `over` on top of `base`.
pub(super) fn merge(base: Node, over: Node) -> Node {
    let at = over.at.clone();
    let value = match (base.value, over.value) {
        (Value::Mapping(base), Value::Mapping(over)) => Value::Mapping(merge_entries(base, over)),
        (Value::Sequence(base), Value::Sequence(over)) => Value::Sequence(append(base, over)),
        (base, Value::Null) => base,
        (_, over) => over,
    };
    Node { value, at }
}

fn merge_entries(mut base: Vec<(Key, Node)>, over: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
    for (key, node) in over {
        match base.iter_mut().find(|(known, _)| known.name == key.name) {
            Some(entry) if REPLACED.contains(&key.name.as_str()) => *entry = (key, node),
            Some(entry) => {
                let below = std::mem::replace(&mut entry.1.value, Value::Null);
                let below = Node {
                    value: below,
                    at: entry.1.at.clone(),
                };
                *entry = (key, merge(below, node));
            }
            None => base.push((key, node)),
        }
    }
    base
}

/// Both lists; what is there twice comes once. Mounts of one target are one thing: the later wins.
fn append(base: Vec<Node>, over: Vec<Node>) -> Vec<Node> {
    let is_replaced = |node: &Node| over.iter().any(|other| identity(node) == identity(other));
    let mut items: Vec<Node> = base.into_iter().filter(|node| !is_replaced(node)).collect();
    items.extend(over);
    items
}

/// By what two items of a list are the same.
fn identity(node: &Node) -> String {
    match &node.value {
        Value::Scalar { text, .. } => match text.split(':').collect::<Vec<_>>()[..] {
            [_, target, ..] if target.starts_with('/') => target.to_owned(),
            _ => text.clone(),
        },
        Value::Mapping(_) if node.get("type").is_some() => {
            node.get("target").map(identity).unwrap_or_default()
        }
        _ => node.to_json().to_string(),
    }
}

/// Writes out the short forms of a service.
pub(super) fn normalise_service(node: &mut Node) -> Result<(), ComposeError> {
    let Value::Mapping(entries) = &mut node.value else {
        return Ok(());
    };
    for (key, node) in entries {
        match key.name.as_str() {
            "environment" | "labels" | "annotations" => list_to_mapping(node, '=')?,
            "extra_hosts" => list_to_mapping(node, if has(node, '=') { '=' } else { ':' })?,
            "depends_on" | "networks" => names_to_mapping(node),
            "build" => normalise_build(node)?,
            "extends" => wrap(node, "service"),
            "env_file" | "tmpfs" | "profiles" => one_to_list(node),
            _ => {}
        }
    }
    Ok(())
}

fn normalise_build(node: &mut Node) -> Result<(), ComposeError> {
    wrap(node, "context");
    let Value::Mapping(entries) = &mut node.value else {
        return Ok(());
    };
    for (key, node) in entries {
        if key.name == "args" {
            list_to_mapping(node, '=')?;
        }
    }
    Ok(())
}

fn has(node: &Node, separator: char) -> bool {
    match &node.value {
        Value::Sequence(items) => items.iter().any(
            |item| matches!(&item.value, Value::Scalar { text, .. } if text.contains(separator)),
        ),
        _ => false,
    }
}

/// `[A=b, C]` → `{A: b, C: null}`
fn list_to_mapping(node: &mut Node, separator: char) -> Result<(), ComposeError> {
    let Value::Sequence(items) = &node.value else {
        return Ok(());
    };
    let mut entries: Vec<(Key, Node)> = Vec::with_capacity(items.len());
    for item in items {
        let Value::Scalar { text, .. } = &item.value else {
            return Err(ComposeError::at(
                &item.at,
                format!("an item must be NAME{separator}VALUE"),
            ));
        };
        let (name, node) = match text.split_once(separator) {
            Some((name, value)) => (name, Node::text(value, &item.at)),
            None => (
                text.as_str(),
                Node {
                    value: Value::Null,
                    at: item.at.clone(),
                },
            ),
        };
        let key = Key {
            name: name.to_owned(),
            at: item.at.clone(),
        };
        entries.retain(|(known, _)| known.name != key.name);
        entries.push((key, node));
    }
    node.value = Value::Mapping(entries);
    Ok(())
}

/// `[a, b]` → `{a: null, b: null}`
fn names_to_mapping(node: &mut Node) {
    let Value::Sequence(items) = &node.value else {
        return;
    };
    let entries = items.iter().filter_map(|item| match &item.value {
        Value::Scalar { text, .. } => {
            let key = Key {
                name: text.clone(),
                at: item.at.clone(),
            };
            Some((
                key,
                Node {
                    value: Value::Null,
                    at: item.at.clone(),
                },
            ))
        }
        _ => None,
    });
    node.value = Value::Mapping(entries.collect());
}

/// `value` → `{key: value}`
fn wrap(node: &mut Node, key: &str) {
    if matches!(node.value, Value::Scalar { .. }) {
        let key = Key {
            name: key.to_owned(),
            at: node.at.clone(),
        };
        node.value = Value::Mapping(vec![(key, node.clone())]);
    }
}

/// `value` → `[value]`
fn one_to_list(node: &mut Node) {
    if matches!(node.value, Value::Scalar { .. }) {
        node.value = Value::Sequence(vec![node.clone()]);
    }
}
