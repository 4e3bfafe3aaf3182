//! Values out of nodes: each function says what it expects, and complains at the place where it is not so.

use std::time::Duration;

use super::document::{Node, Value};
use super::error::ComposeError;
use super::units;

/// A single value as text.
pub(super) fn text(node: &Node, what: &str) -> Result<String, ComposeError> {
    match &node.value {
        Value::Scalar { text, .. } => Ok(text.clone()),
        _ => Err(expected(node, what, "a single value")),
    }
}

/// `true` or `false`.
pub(super) fn boolean(node: &Node, what: &str) -> Result<bool, ComposeError> {
    match text(node, what)?.as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(expected(node, what, "true or false")),
    }
}

/// A whole number.
pub(super) fn number<T: std::str::FromStr>(node: &Node, what: &str) -> Result<T, ComposeError> {
    text(node, what)?
        .parse()
        .map_err(|_| expected(node, what, "a whole number"))
}

/// `1m30s`
pub(super) fn duration(node: &Node, what: &str) -> Result<Duration, ComposeError> {
    units::duration(&text(node, what)?).ok_or_else(|| expected(node, what, "a duration like 1m30s"))
}

/// `64m`
pub(super) fn bytes(node: &Node, what: &str) -> Result<u64, ComposeError> {
    units::bytes(&text(node, what)?).ok_or_else(|| expected(node, what, "a size like 64m"))
}

/// `0.5`
pub(super) fn cpu_millis(node: &Node, what: &str) -> Result<u64, ComposeError> {
    units::cpu_millis(&text(node, what)?)
        .ok_or_else(|| expected(node, what, "a number of processors like 0.5"))
}

/// A port number; 0 is none.
pub(super) fn port(node: &Node, what: &str) -> Result<u16, ComposeError> {
    match number(node, what) {
        Ok(port @ 1..) => Ok(port),
        _ => Err(expected(node, what, "a port between 1 and 65535")),
    }
}

/// The items of a list.
pub(super) fn list<'a>(node: &'a Node, what: &str) -> Result<&'a [Node], ComposeError> {
    match &node.value {
        Value::Sequence(items) => Ok(items),
        Value::Null => Ok(&[]),
        _ => Err(expected(node, what, "a list")),
    }
}

/// A list of texts.
pub(super) fn texts(node: &Node, what: &str) -> Result<Vec<String>, ComposeError> {
    list(node, what)?
        .iter()
        .map(|item| text(item, what))
        .collect()
}

/// A list of texts, or one text.
pub(super) fn text_or_texts(node: &Node, what: &str) -> Result<Vec<String>, ComposeError> {
    match &node.value {
        Value::Scalar { text, .. } => Ok(vec![text.clone()]),
        _ => texts(node, what),
    }
}

/// A command: a list of words, or one text that is split as a shell splits it.
pub(super) fn words(node: &Node, what: &str) -> Result<Vec<String>, ComposeError> {
    match &node.value {
        Value::Scalar { text, .. } => shlex::split(text)
            .ok_or_else(|| expected(node, what, "a command whose quotes are closed")),
        _ => texts(node, what),
    }
}

/// Names with texts; nothing stands for `None`.
pub(super) fn pairs(
    node: &Node,
    what: &str,
) -> Result<Vec<(String, Option<String>)>, ComposeError> {
    match &node.value {
        Value::Mapping(entries) => entries
            .iter()
            .map(|(key, node)| match node.value {
                Value::Null => Ok((key.name.clone(), None)),
                _ => Ok((
                    key.name.clone(),
                    Some(text(node, &format!("{what}.{}", key.name))?),
                )),
            })
            .collect(),
        Value::Null => Ok(Vec::new()),
        _ => Err(expected(node, what, "a mapping")),
    }
}

/// That something else was expected.
pub(super) fn expected(node: &Node, what: &str, expectation: &str) -> ComposeError {
    let found = match &node.value {
        Value::Scalar { text, .. } => format!("{text:?}"),
        _ => node.describe().to_owned(),
    };
    ComposeError::at(
        &node.at,
        format!("{what} must be {expectation}, not {found}"),
    )
}
