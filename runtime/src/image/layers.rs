//! The unpacked layers of a store, shared by all images that contain them.
//!
//! A layer is keyed by its diff id, the digest of its uncompressed archive. Its folder appears
//! by one rename after everything in it was flushed, so a folder that exists is complete. Beside
//! it stands a record that says which blob it came from.

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use oci_spec::image::{Descriptor, MediaType};
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempDir};

use super::compression::decompress;
use super::digest::{Digest, Hashing};
use super::error::ImageError;
use super::index::descriptor;
use super::layer::entries;
use super::layer::tree::Tree;
use super::layer::unpack::{Purpose, Unpacked, unpack};
use super::layout::{Layout, sync_parent};

/// Layers are made with gzip, which every tool reads; zstd is not allowed in docker's own format.
/// This level takes half the time of the usual one and gives a tenth more bytes.
const GZIP_LEVEL: u32 = 3;

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    pub(super) diff: Digest,
    pub(super) blob: Digest,
    pub(super) blob_bytes: u64,
    pub(super) media_type: String,
    /// Of file content.
    pub(super) unpacked_bytes: u64,
}

impl Layer {
    pub(super) fn descriptor(&self) -> Descriptor {
        let media_type = MediaType::from(self.media_type.as_str());
        descriptor(media_type, &self.blob, self.blob_bytes)
    }
}

/// A layer of the store; None where folder, record or blob is missing.
pub(super) fn find(layout: &Layout, diff: &Digest) -> Option<Layer> {
    let bytes = fs::read(record(layout, diff)).ok()?;
    let layer: Layer = serde_json::from_slice(&bytes).ok()?;
    let is_complete = layout.layer(diff).is_dir() && layout.blob(&layer.blob).exists();
    (is_complete && &layer.diff == diff).then_some(layer)
}

pub(super) fn record(layout: &Layout, diff: &Digest) -> PathBuf {
    layout.layers().join(format!("{}.json", diff.hex()))
}

/// A layer that is complete in a scratch folder, but not yet in the store.
pub(super) struct Staged {
    pub(super) layer: Layer,
    pub(super) folder: PathBuf,
    pub(super) blob: StagedBlob,
}

/// Its blob.
pub(super) enum StagedBlob {
    /// To be moved into the store.
    File(PathBuf),
    /// To be moved into the store.
    Written(NamedTempFile),
}

/// Unpacks an archive of unknown compression into `folder`, which it makes.
/// Returns the diff id of what it unpacked.
pub(super) fn unpack_into(
    source: &mut dyn Read,
    folder: &Path,
) -> Result<(Digest, Unpacked), ImageError> {
    fs::create_dir(folder).map_err(ImageError::at("making", folder))?;
    let plain = decompress(source).map_err(ImageError::io("reading the layer"))?;
    let mut plain = Hashing::new(plain);
    let mut tree = Tree::open(folder)?;
    let unpacked = unpack(
        &mut plain,
        &mut tree,
        Path::new(""),
        Purpose::Layer,
        entries::LAYER,
    )?;
    tree.finish()?;
    let (_, diff, _) = plain.finish();
    Ok((diff, unpacked))
}

/// Writes a compressed blob while its uncompressed bytes are made by `write`.
pub(super) fn compress_blob<T>(
    layout: &Layout,
    write: impl FnOnce(&mut dyn Write) -> Result<T, ImageError>,
) -> Result<(NamedTempFile, CompressedBlob, T), ImageError> {
    let failed = || ImageError::io("compressing a layer");
    let file = layout.scratch_file()?;
    // Without name and time: equal layers give equal blobs.
    let encoder = flate2::GzBuilder::new().mtime(0).write(
        Hashing::new(BufWriter::new(file)),
        Compression::new(GZIP_LEVEL),
    );
    let mut plain = Hashing::new(encoder);
    let result = write(&mut plain)?;
    let (encoder, diff, _) = plain.finish();
    let (file, blob, bytes) = encoder.finish().map_err(failed())?.finish();
    let file = file
        .into_inner()
        .map_err(|error| failed()(error.into_error()))?;
    Ok((file, CompressedBlob { diff, blob, bytes }, result))
}

/// Digests of a blob that was just written.
pub(super) struct CompressedBlob {
    pub(super) diff: Digest,
    pub(super) blob: Digest,
    pub(super) bytes: u64,
}

impl CompressedBlob {
    pub(super) fn layer(self, unpacked_bytes: u64) -> Layer {
        Layer {
            diff: self.diff,
            blob: self.blob,
            blob_bytes: self.bytes,
            media_type: MediaType::ImageLayerGzip.to_string(),
            unpacked_bytes,
        }
    }
}

/// Moves layers into the store. Where another process was faster, its copy stays.
pub(super) fn install(
    layout: &Layout,
    scratch: &TempDir,
    staged: Vec<Staged>,
) -> Result<(), ImageError> {
    if staged.is_empty() {
        return Ok(());
    }
    // Content must be on disk before a name says that it is; one flush serves all layers.
    let folder =
        fs::File::open(scratch.path()).map_err(ImageError::at("opening", scratch.path()))?;
    rustix::fs::syncfs(&folder).map_err(ImageError::sys("flushing", scratch.path()))?;
    for staged in staged {
        install_one(layout, staged)?;
    }
    sync_parent(&layout.layers().join("."))?;
    sync_parent(&layout.blobs().join("."))
}

fn install_one(layout: &Layout, staged: Staged) -> Result<(), ImageError> {
    let blob = layout.blob(&staged.layer.blob);
    match staged.blob {
        StagedBlob::File(path) => {
            fs::rename(path, &blob).map_err(ImageError::at("renaming into", &blob))?
        }
        StagedBlob::Written(file) => layout.publish(file, &blob)?,
    }
    let folder = layout.layer(&staged.layer.diff);
    match fs::rename(&staged.folder, &folder) {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
            ) => {}
        Err(error) => return Err(ImageError::at("renaming into", &folder)(error)),
    }
    let path = record(layout, &staged.layer.diff);
    let bytes = serde_json::to_vec(&staged.layer)
        .map_err(|error| ImageError::at("writing", &path)(error.into()))?;
    let mut file = layout.scratch_file()?;
    file.write_all(&bytes)
        .map_err(ImageError::at("writing", &path))?;
    layout.publish(file, &path)
}
