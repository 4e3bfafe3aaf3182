//! Volumes, bind mounts, tmpfs, and the files that configs and secrets become.

use std::path::PathBuf;

use super::document::{Node, Value};
use super::error::{ComposeError, Location, Warning};
use super::service::Context;
use super::{read, schema};

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) source: MountSource,
    pub(super) target: String,
    pub(super) is_read_only: bool,
    pub(super) at: Location,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MountSource {
    /// A folder or file of the host, absolute.
    Host(PathBuf),
    /// A named volume of the file.
    Volume(String),
    /// A volume that belongs to the pod alone.
    Anonymous,
    /// Memory.
    Tmpfs { bytes: Option<u64> },
}

/// A config or secret in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileMount {
    pub(super) source: String,
    pub(super) target: String,
    pub(super) mode: Option<u32>,
    pub(super) at: Location,
}

/// Reads `volumes` and `tmpfs`.
pub(super) fn read_all(
    service: &Node,
    place: &str,
    context: &Context<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Mount>, ComposeError> {
    let mut mounts = Vec::new();
    let what = format!("{place}.volumes");
    for item in service
        .get("volumes")
        .map_or(Ok(&[][..]), |node| read::list(node, &what))?
    {
        mounts.push(match &item.value {
            Value::Mapping(_) => long(item, &what, context, warnings)?,
            _ => short(item, &what, context)?,
        });
    }
    let what = format!("{place}.tmpfs");
    for item in service
        .get("tmpfs")
        .map_or(Ok(&[][..]), |node| read::list(node, &what))?
    {
        let text = read::text(item, &what)?;
        let target = text.split(':').next().unwrap_or_default().to_owned();
        mounts.push(Mount {
            source: MountSource::Tmpfs { bytes: None },
            target,
            is_read_only: false,
            at: item.at.clone(),
        });
    }
    match mounts.iter().find(|mount| !mount.target.starts_with('/')) {
        Some(mount) => Err(ComposeError::at(
            &mount.at,
            format!("{place}: {:?} is no absolute path", mount.target),
        )),
        None => Ok(mounts),
    }
}

/// `[source:]target[:ro]`
fn short(node: &Node, what: &str, context: &Context<'_>) -> Result<Mount, ComposeError> {
    let text = read::text(node, what)?;
    let (source, target, options) = match text.split(':').collect::<Vec<_>>()[..] {
        [target] => (None, target.to_owned(), ""),
        [source, target] => (Some(source.to_owned()), target.to_owned(), ""),
        [source, target, options] => (Some(source.to_owned()), target.to_owned(), options),
        _ => {
            return Err(read::expected(
                node,
                what,
                "a mount like \"data:/var/lib/data\" or \"./conf:/etc/app:ro\"",
            ));
        }
    };
    let is_read_only = match options {
        "" | "rw" | "z" | "Z" => false,
        "ro" => true,
        _ => {
            return Err(read::expected(
                node,
                what,
                "a mount with the option ro or rw",
            ));
        }
    };
    let source = source.map_or(MountSource::Anonymous, |source| source_of(&source, context));
    Ok(Mount {
        source,
        target,
        is_read_only,
        at: node.at.clone(),
    })
}

fn source_of(source: &str, context: &Context<'_>) -> MountSource {
    if let Some(rest) = source.strip_prefix("~/")
        && let Some(home) = context.environment.get("HOME")
    {
        return MountSource::Host(PathBuf::from(home).join(rest));
    }
    match source.starts_with(['.', '/']) {
        true => {
            let path = context.directory.join(source);
            MountSource::Host(std::path::absolute(&path).unwrap_or(path))
        }
        false => MountSource::Volume(source.to_owned()),
    }
}

fn long(
    node: &Node,
    what: &str,
    context: &Context<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Mount, ComposeError> {
    schema::check(node, what, schema::VOLUME, warnings)?;
    let text = |field: &str| {
        node.get(field)
            .map(|node| read::text(node, &format!("{what}.{field}")))
            .transpose()
    };
    let kind = text("type")?.unwrap_or_else(|| "volume".to_owned());
    let source = match (kind.as_str(), text("source")?) {
        ("volume", None) => MountSource::Anonymous,
        ("volume", Some(source)) => MountSource::Volume(source),
        ("bind", Some(source)) => {
            let path = context.directory.join(source);
            MountSource::Host(std::path::absolute(&path).unwrap_or(path))
        }
        ("tmpfs", _) => {
            let size = node.get("tmpfs").and_then(|tmpfs| tmpfs.get("size"));
            MountSource::Tmpfs {
                bytes: size
                    .map(|node| read::bytes(node, &format!("{what}.tmpfs.size")))
                    .transpose()?,
            }
        }
        _ => {
            return Err(ComposeError::at(
                &node.at,
                format!("{what}: a mount is a volume, a bind with a source, or a tmpfs"),
            ));
        }
    };
    let target = text("target")?
        .ok_or_else(|| ComposeError::at(&node.at, format!("{what}: a mount has no target")))?;
    let is_read_only = node
        .get("read_only")
        .map_or(Ok(false), |node| read::boolean(node, what))?;
    Ok(Mount {
        source,
        target,
        is_read_only,
        at: node.at.clone(),
    })
}

/// Reads `configs` or `secrets` of a service.
pub(super) fn read_files(
    node: Option<&Node>,
    what: &str,
    folder: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<FileMount>, ComposeError> {
    let mut files = Vec::new();
    for item in node.map_or(Ok(&[][..]), |node| read::list(node, what))? {
        let (source, target, mode) = match &item.value {
            Value::Mapping(_) => {
                schema::check(item, what, schema::FILE_MOUNT, warnings)?;
                let source = item
                    .get("source")
                    .ok_or_else(|| ComposeError::at(&item.at, format!("{what}: no source")))?;
                let target = item
                    .get("target")
                    .map(|node| read::text(node, what))
                    .transpose()?;
                (
                    read::text(source, what)?,
                    target,
                    item.get("mode").map(|node| mode(node, what)).transpose()?,
                )
            }
            _ => (read::text(item, what)?, None, None),
        };
        let target = match target {
            Some(target) if target.starts_with('/') => target,
            Some(target) => format!("{folder}{target}"),
            None => format!("{folder}{source}"),
        };
        files.push(FileMount {
            source,
            target,
            mode,
            at: item.at.clone(),
        });
    }
    Ok(files)
}

fn mode(node: &Node, what: &str) -> Result<u32, ComposeError> {
    let text = read::text(node, what)?;
    let digits = text.trim_start_matches("0o");
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| read::expected(node, what, "permissions like 0440"))
}
