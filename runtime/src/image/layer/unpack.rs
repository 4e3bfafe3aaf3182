//! Unpacks a tar archive into a folder: a layer, a build context, or an `ADD`ed archive.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::EntryType;

use super::attributes::Attributes;
use super::entries::{self, Entry, Limits};
use super::path::{clean, split};
use super::tree::Tree;
use super::whiteout;
use crate::image::error::ImageError;

/// How names and owners of the archive are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `.wh.` names are deletions; files get their owners.
    Layer,
    /// Names are names; files belong to whoever unpacks.
    Context,
    /// Names are names, and `.wh.` ones are refused; files get their owners, or this one.
    Add { owner: Option<(u32, u32)> },
}

/// What an archive turned into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of file content.
    pub(crate) bytes: u64,
    /// Devices and sockets, which a container gets from the runtime and not from its image.
    pub(crate) devices_skipped: u64,
}

/// Unpacks `source` below `prefix` of the tree.
pub(crate) fn unpack<'r>(
    source: &'r mut (dyn Read + 'r),
    tree: &mut Tree,
    prefix: &Path,
    purpose: Purpose,
    limits: Limits,
) -> Result<Unpacked, ImageError> {
    let mut unpacked = Unpacked::default();
    entries::for_each(source, limits, |entry| {
        let raw = entry.path_bytes().into_owned();
        let lossy = || PathBuf::from(OsStr::from_bytes(&raw));
        let path = clean(&raw).map_err(|reason| ImageError::entry(&lossy(), reason))?;
        if purpose == Purpose::Layer && apply_deletion(tree, &path)? {
            return Ok(());
        }
        let is_deletion = |name: &OsStr| name.as_bytes().starts_with(whiteout::PREFIX);
        if matches!(purpose, Purpose::Add { .. }) && path.iter().any(is_deletion) {
            return Err(ImageError::entry(
                &path,
                "names that begin with '.wh.' mean deletion in images",
            ));
        }
        write_entry(
            entry,
            tree,
            &prefix.join(&path),
            prefix,
            purpose,
            &mut unpacked,
        )
    })?;
    Ok(unpacked)
}

/// Whether the entry was a deletion rather than a file.
fn apply_deletion(tree: &mut Tree, path: &Path) -> Result<bool, ImageError> {
    let Some((parent, name)) = split(path) else {
        return Ok(false);
    };
    match name.as_bytes() {
        whiteout::OPAQUE => tree.opaque(parent)?,
        // Other notation is aufs' book-keeping.
        name if name.starts_with(whiteout::META_PREFIX) => {}
        name => match name.strip_prefix(whiteout::PREFIX) {
            Some(b"" | b"." | b"..") => return Err(ImageError::entry(path, "deletes nothing")),
            Some(name) => tree.whiteout(&parent.join(OsStr::from_bytes(name)))?,
            None => return Ok(false),
        },
    }
    Ok(true)
}

fn write_entry(
    entry: &mut Entry<'_, '_>,
    tree: &mut Tree,
    path: &Path,
    prefix: &Path,
    purpose: Purpose,
    unpacked: &mut Unpacked,
) -> Result<(), ImageError> {
    let attributes = attributes(entry, path, purpose)?;
    match entry.header().entry_type() {
        EntryType::Directory => tree.folder(path, attributes),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            unpacked.bytes += tree.file(path, entry, &attributes)?;
            Ok(())
        }
        EntryType::Symlink => {
            let target = link_name(entry, path)?;
            tree.symlink(path, OsStr::from_bytes(&target), &attributes)
        }
        EntryType::Link => {
            let target = link_name(entry, path)?;
            let target = clean(&target).map_err(|reason| ImageError::entry(path, reason))?;
            tree.hard_link(path, &prefix.join(target))
        }
        EntryType::Fifo => tree.fifo(path, &attributes),
        EntryType::Char | EntryType::Block => {
            unpacked.devices_skipped += 1;
            Ok(())
        }
        EntryType::XGlobalHeader => Ok(()),
        other => Err(ImageError::entry(
            path,
            format!("an entry of type {other:?}"),
        )),
    }
}

fn attributes(
    entry: &mut Entry<'_, '_>,
    path: &Path,
    purpose: Purpose,
) -> Result<Attributes, ImageError> {
    let mut attributes =
        Attributes::of_entry(entry).map_err(|error| ImageError::entry(path, error.to_string()))?;
    match purpose {
        Purpose::Layer => {}
        Purpose::Context => attributes.owner = None,
        Purpose::Add { owner } => attributes.owner = owner.or(attributes.owner),
    }
    Ok(attributes)
}

fn link_name(entry: &Entry<'_, '_>, path: &Path) -> Result<Vec<u8>, ImageError> {
    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
    if target.is_empty() || target.len() >= 4096 || target.contains(&0) {
        return Err(ImageError::entry(path, "a link without a valid target"));
    }
    Ok(target)
}
