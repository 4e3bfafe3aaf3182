//! YAML as a tree in which everything knows its place. Anchors, aliases and merge keys are resolved here.
//!
//! The tree is bounded: files of a few kilobytes that expand into gigabytes ("alias bombs") are refused.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Number, Value as Json};

use super::error::{ComposeError, Location, Source};

/// The largest file that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The most nodes of one file, aliases expanded.
const MAX_NODES: usize = 100_000;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Location,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Nothing: `key:`, `null` or `~`.
    Null,
    /// Text as written; `is_plain` where it had no quotes, so that `true` and `12` may be meant as such.
    Scalar { text: String, is_plain: bool },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys in the order of the file, each once.
    Mapping(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) at: Location,
}

impl Node {
    /// A text node at the place of another.
    pub(super) fn text(text: impl Into<String>, at: &Location) -> Self {
        Self {
            value: Value::Scalar {
                text: text.into(),
                is_plain: false,
            },
            at: at.clone(),
        }
    }

    /// What it is, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Mapping(entries) => entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// As JSON, by YAML's core schema.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Scalar {
                text,
                is_plain: false,
            } => Json::String(text.clone()),
            Value::Scalar {
                text,
                is_plain: true,
            } => plain_to_json(text),
            Value::Sequence(items) => items.iter().map(Node::to_json).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .map(|(key, node)| (key.name.clone(), node.to_json()))
                .collect(),
        }
    }
}

fn plain_to_json(text: &str) -> Json {
    match text {
        "true" => return Json::Bool(true),
        "false" => return Json::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return Json::Number(number.into());
    }
    let looks_decimal = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    match text
        .parse::<f64>()
        .ok()
        .filter(|_| looks_decimal)
        .and_then(Number::from_f64)
    {
        Some(number) => Json::Number(number),
        None => Json::String(text.to_owned()),
    }
}

/// Reads and parses a file; an empty one is an empty mapping.
///
/// # Errors
/// Where it cannot be read, is too large, is not UTF-8 or not YAML, or holds several documents.
pub(super) fn read(path: &Path) -> Result<Node, ComposeError> {
    let explain =
        |error: std::io::Error| ComposeError::new(format!("reading {}: {error}", path.display()));
    let size = std::fs::metadata(path).map_err(explain)?.len();
    if size > MAX_BYTES {
        return Err(ComposeError::new(format!(
            "{} has {size} bytes; the limit is {MAX_BYTES}",
            path.display()
        )));
    }
    parse(path, utf8(path, std::fs::read(path).map_err(explain)?)?)
}

/// The text of a file.
pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, ComposeError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        ComposeError::new(format!(
            "{}:{line}: a byte that is not UTF-8: save the file as UTF-8",
            path.display()
        ))
    })
}

/// Parses one document.
pub(super) fn parse(path: &Path, text: String) -> Result<Node, ComposeError> {
    let source = Arc::new(Source {
        path: path.to_owned(),
        text,
    });
    let mut builder = Builder::new(Arc::clone(&source));
    for event in Parser::new_from_str(&source.text) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            ComposeError::at(
                &location(&source, marker.line(), marker.col() + 1, 1),
                format!("not YAML: {}", error.info()),
            )
        })?;
        builder.take(event, &span)?;
    }
    Ok(builder.finish())
}

fn location(source: &Arc<Source>, line: usize, column: usize, length: usize) -> Location {
    Location {
        source: Arc::clone(source),
        line: line.max(1),
        column: column.max(1),
        length,
    }
}

/// A collection whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<Key>,
    /// Values of merge keys (`<<`), to be merged when everything written out is known.
    merges: Vec<Node>,
}

struct Builder {
    source: Arc<Source>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            documents: 0,
            root: None,
        }
    }

    fn finish(self) -> Node {
        let at = location(&self.source, 1, 1, 1);
        match self.root {
            None
            | Some(Node {
                value: Value::Null, ..
            }) => Node {
                value: Value::Mapping(Vec::new()),
                at,
            },
            Some(root) => root,
        }
    }

    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), ComposeError> {
        let at = self.place(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(ComposeError::at(
                        &at,
                        "a second document: a Compose file holds one",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(tag) = tag
                    && !tag.to_string().starts_with("tag:yaml.org")
                {
                    return Err(ComposeError::at(
                        &at,
                        format!("the tag {tag} is not supported"),
                    ));
                }
                let is_plain = style == ScalarStyle::Plain;
                let value = match &*text {
                    "" | "null" | "~" if is_plain => Value::Null,
                    text => Value::Scalar {
                        text: text.to_owned(),
                        is_plain,
                    },
                };
                self.add(Node { value, at }, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.push(Value::Sequence(Vec::new()), at, anchor)?
            }
            Event::MappingStart(_, anchor, _) => {
                self.push(Value::Mapping(Vec::new()), at, anchor)?
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(mut open) = self.open.pop() {
                    if let Value::Mapping(entries) = &mut open.node.value {
                        open.merges
                            .into_iter()
                            .try_for_each(|node| merge(entries, node))?;
                    }
                    self.add(open.node, open.anchor)?;
                }
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(ComposeError::at(&at, "an alias inside of what it names"));
                };
                self.count(size(&node), &at)?;
                self.add(node, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn place(&self, span: &Span) -> Location {
        let (start, end) = (&span.start, &span.end);
        let length = if start.line() == end.line() {
            end.col().saturating_sub(start.col())
        } else {
            1
        };
        location(&self.source, start.line(), start.col() + 1, length.max(1))
    }

    fn count(&mut self, nodes: usize, at: &Location) -> Result<(), ComposeError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(ComposeError::at(
                at,
                format!("the file expands to more than {MAX_NODES} values"),
            ));
        }
        Ok(())
    }

    fn push(&mut self, value: Value, at: Location, anchor: usize) -> Result<(), ComposeError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(ComposeError::at(
                &at,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.open.push(Open {
            node: Node { value, at },
            anchor,
            key: None,
            merges: Vec::new(),
        });
        Ok(())
    }

    /// A complete node goes to where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), ComposeError> {
        self.count(1, &node.at)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::Mapping(entries) => match open.key.take() {
                None => open.key = Some(key(node)?),
                Some(key) if key.name == "<<" => open.merges.push(node),
                Some(key) => insert(entries, key, node)?,
            },
            Value::Sequence(items) => items.push(node),
            Value::Null | Value::Scalar { .. } => {}
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar { .. } => 0,
        Value::Sequence(items) => items.iter().map(size).sum(),
        Value::Mapping(entries) => entries.iter().map(|(_, node)| 1 + size(node)).sum(),
    }
}

fn key(node: Node) -> Result<Key, ComposeError> {
    match node.value {
        Value::Scalar { text, .. } => Ok(Key {
            name: text,
            at: node.at,
        }),
        _ => Err(ComposeError::at(&node.at, "a key must be a single value")),
    }
}

/// Adds an entry; a key may come only once.
fn insert(entries: &mut Vec<(Key, Node)>, key: Key, node: Node) -> Result<(), ComposeError> {
    if let Some((known, _)) = entries.iter().find(|(known, _)| known.name == key.name) {
        return Err(ComposeError::at(
            &key.at,
            format!(
                "the key {:?} is there twice; first in line {}",
                key.name, known.at.line
            ),
        ));
    }
    entries.push((key, node));
    Ok(())
}

/// Adds the entries of a merge key's value that are not there yet: what is written out wins, and of several the first.
fn merge(entries: &mut Vec<(Key, Node)>, node: Node) -> Result<(), ComposeError> {
    match node.value {
        Value::Mapping(merged) => {
            for (key, node) in merged {
                if !entries.iter().any(|(known, _)| known.name == key.name) {
                    entries.push((key, node));
                }
            }
            Ok(())
        }
        Value::Sequence(items) => items.into_iter().try_for_each(|item| merge(entries, item)),
        _ => Err(ComposeError::at(
            &node.at,
            "<< takes a mapping or a list of mappings",
        )),
    }
}
