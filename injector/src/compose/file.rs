//! Configs and secrets of the whole file: where their content comes from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::document::Node;
use super::error::{ComposeError, Location, Warning};
use super::service::Context;
use super::{entries, read, schema};

/// Where the content of a config or secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileSource {
    /// It is written in the file.
    Content(String),
    /// It is in a file.
    File(PathBuf, Location),
}

/// The largest config or secret, as in Kubernetes.
const MAX_BYTES: u64 = 1024 * 1024;

impl FileSource {
    /// Its text.
    pub(super) fn content(&self) -> Result<String, ComposeError> {
        match self {
            Self::Content(content) => Ok(content.clone()),
            Self::File(path, at) => {
                let explain =
                    |error| ComposeError::at(at, format!("reading {}: {error}", path.display()));
                if std::fs::metadata(path).map_err(explain)?.len() > MAX_BYTES {
                    return Err(ComposeError::at(
                        at,
                        format!("{} is larger than {MAX_BYTES} bytes", path.display()),
                    ));
                }
                std::fs::read_to_string(path).map_err(explain)
            }
        }
    }
}

/// Reads `configs` or `secrets`.
pub(super) fn read_all(
    root: &Node,
    section: &str,
    context: &Context<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<BTreeMap<String, FileSource>, ComposeError> {
    let mut sources = BTreeMap::new();
    for (key, node) in entries(root, section)? {
        let place = format!("{section}.{}", key.name);
        schema::check(node, &place, schema::FILE_SOURCE, warnings)?;
        let field = |name: &str| {
            node.get(name)
                .map(|node| read::text(node, &format!("{place}.{name}")))
                .transpose()
        };
        let source = match (field("content")?, field("file")?, field("environment")?) {
            (Some(content), None, None) => FileSource::Content(content),
            (None, Some(file), None) => {
                FileSource::File(context.directory.join(file), node.at.clone())
            }
            (None, None, Some(name)) => match context.environment.get(&name) {
                Some(value) => FileSource::Content(value.clone()),
                None => {
                    return Err(ComposeError::at(
                        &node.at,
                        format!("{place}: the variable {name} is not set"),
                    ));
                }
            },
            _ => {
                return Err(ComposeError::at(
                    &key.at,
                    format!("{place} needs one of file, content, environment"),
                ));
            }
        };
        sources.insert(key.name.clone(), source);
    }
    Ok(sources)
}
