//! Deletes what no image needs any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::build::cache;
use super::config::Document;
use super::error::ImageError;
use super::layout::Layout;
use super::{export, index, layers};

/// Build steps that no build asked for this long are forgotten, with layers only they need.
const CACHE_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Unpacked layers.
    pub layers: u64,
    /// Compressed layers, manifests and configurations.
    pub blobs: u64,
    /// Bytes of the blobs.
    pub bytes: u64,
}

/// Deletes unneeded files, unless somebody is adding content at this moment.
pub(super) fn prune(layout: &Layout, in_use: &BTreeSet<PathBuf>) -> Result<Pruned, ImageError> {
    let Some(_alone) = layout.try_exclusive()? else {
        return Ok(Pruned::default());
    };
    let mut kept_blobs = BTreeSet::new();
    let mut kept_layers = BTreeSet::new();
    for entry in index::read(layout)? {
        kept_blobs.extend(export::blobs_of(layout, &entry)?);
        let document = Document::parse(&layout.read_blob(&entry.id)?)?;
        kept_layers.extend(document.rootfs.diff_ids);
    }
    cache::forget_older(layout, SystemTime::now() - CACHE_AGE)?;
    kept_layers.extend(cache::layers(layout)?);
    // The blob by which a kept layer is known stays, lest the layer be unpacked again.
    let records = kept_layers
        .iter()
        .filter_map(|diff| layers::find(layout, diff));
    kept_blobs.extend(records.map(|layer| layer.blob));

    let kept: BTreeSet<&str> = kept_layers.iter().map(|diff| diff.hex()).collect();
    let mut pruned = Pruned::default();
    for name in names_in(&layout.layers())? {
        let path = layout.layers().join(&name);
        let hex = name.strip_suffix(".json").unwrap_or(&name);
        if kept.contains(hex) || in_use.contains(&layout.layers().join(hex)) {
            continue;
        }
        if path.is_dir() {
            remove_layer(layout, &path)?;
            pruned.layers += 1;
        } else {
            fs::remove_file(&path).map_err(ImageError::at("removing", &path))?;
        }
    }
    let kept: BTreeSet<&str> = kept_blobs.iter().map(|digest| digest.hex()).collect();
    for name in names_in(&layout.blobs())? {
        if kept.contains(name.as_str()) {
            continue;
        }
        let path = layout.blobs().join(name);
        pruned.bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
        pruned.blobs += 1;
        fs::remove_file(&path).map_err(ImageError::at("removing", &path))?;
    }
    Ok(pruned)
}

/// Renames first: a layer that is being deleted must not be taken for a complete one.
fn remove_layer(layout: &Layout, path: &Path) -> Result<(), ImageError> {
    let grave = layout.scratch()?;
    let target = grave.path().join("layer");
    fs::rename(path, &target).map_err(ImageError::at("removing", path))?;
    grave.close().map_err(ImageError::at("removing", path))
}

fn names_in(folder: &Path) -> Result<Vec<String>, ImageError> {
    let entries = fs::read_dir(folder).map_err(ImageError::at("listing", folder))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}
