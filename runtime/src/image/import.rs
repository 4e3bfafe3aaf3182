//! Takes the images of an archive into the store.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use oci_spec::image::{ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use tempfile::TempDir;

use super::archive::{Bundle, FoundImage, FoundLayer, Promise};
use super::config::Document;
use super::digest::{Digest, Hashing};
use super::error::ImageError;
use super::index::{self, descriptor};
use super::layers::{self, Layer, Staged, StagedBlob};
use super::layout::Layout;
use super::reference::Reference;

/// Layers of one image; overlayfs takes at most 500.
pub(super) const LAYERS: usize = 400;

/// Imports all images of the archive; returns the id of the first.
///
/// With a `reference` the archive must hold a single image, whose name this becomes.
pub(super) fn import(
    layout: &Layout,
    source: &mut dyn Read,
    reference: Option<&str>,
    progress: &mut dyn FnMut(String),
) -> Result<Digest, ImageError> {
    let name = reference.map(str::parse::<Reference>).transpose()?;
    let _shared = layout.shared()?;
    progress("reading the archive".to_owned());
    let bundle = Bundle::spool(source, layout)?;
    let mut images = bundle.images()?;
    if let Some(name) = name {
        if images.len() > 1 {
            return Err(ImageError::archive(format!(
                "it holds {} images, which cannot all be named {}; import it without a name",
                images.len(),
                name.familiar()
            )));
        }
        for image in &mut images {
            image.names = vec![name.clone()];
        }
    }
    let mut first = None;
    for image in images {
        let id = add(layout, image, progress)?;
        first.get_or_insert(id);
    }
    first.ok_or_else(|| ImageError::archive("it holds no image"))
}

fn add(
    layout: &Layout,
    image: FoundImage,
    progress: &mut dyn FnMut(String),
) -> Result<Digest, ImageError> {
    let document = Document::parse(&image.config)?;
    let diffs = &document.rootfs.diff_ids;
    if diffs.len() != image.layers.len() || diffs.len() > LAYERS {
        return Err(ImageError::archive(format!(
            "its configuration lists {} layers, its manifest {}; at most {LAYERS} are possible",
            diffs.len(),
            image.layers.len()
        )));
    }
    let layers = add_layers(layout, diffs, &image.layers, progress)?;
    let manifest = match image.manifest {
        Some(bytes) => bytes,
        None => manifest(&image.config, &layers)?,
    };
    let unpacked_bytes = layers.iter().map(|layer| layer.unpacked_bytes).sum();
    store(
        layout,
        &image.config,
        &manifest,
        unpacked_bytes,
        &image.names,
    )
}

/// Stores configuration and manifest, and enters the image into the index. Returns its id.
pub(super) fn store(
    layout: &Layout,
    config: &[u8],
    manifest: &[u8],
    unpacked_bytes: u64,
    names: &[Reference],
) -> Result<Digest, ImageError> {
    let entry = index::Entry {
        id: layout.put_blob(config)?,
        manifest: layout.put_blob(manifest)?,
        manifest_bytes: manifest.len() as u64,
        name: None,
        unpacked_bytes,
    };
    index::add(layout, &entry, names)?;
    Ok(entry.id)
}

/// An OCI manifest for these layers.
pub(super) fn manifest(config: &[u8], layers: &[Layer]) -> Result<Vec<u8>, ImageError> {
    let config = descriptor(
        MediaType::ImageConfig,
        &Digest::of(config),
        config.len() as u64,
    );
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers.iter().map(Layer::descriptor).collect::<Vec<_>>())
        .build()
        .map_err(|error| ImageError::io("writing a manifest")(io::Error::other(error)))?;
    serde_json::to_vec(&manifest)
        .map_err(|error| ImageError::io("writing a manifest")(error.into()))
}

fn add_layers(
    layout: &Layout,
    diffs: &[Digest],
    found: &[FoundLayer],
    progress: &mut dyn FnMut(String),
) -> Result<Vec<Layer>, ImageError> {
    let scratch = layout.scratch()?;
    let mut layers = Vec::new();
    let mut staged = Vec::new();
    let mut done = HashSet::new();
    for (number, (diff, found)) in diffs.iter().zip(found).enumerate() {
        let title = format!("layer {}/{} {}", number + 1, diffs.len(), &diff.hex()[..12]);
        let layer = match existing(layout, diff, found)? {
            Some(layer) => {
                progress(format!("{title}: already there"));
                layer
            }
            None => {
                progress(format!("{title}: unpacking"));
                let fresh = stage(
                    layout,
                    &scratch,
                    &format!("{number}"),
                    diff,
                    found,
                    progress,
                )?;
                let layer = fresh.layer.clone();
                // An image may contain the same layer twice, often an empty one.
                if done.insert(diff.clone()) {
                    staged.push(fresh);
                }
                layer
            }
        };
        layers.push(layer);
    }
    layers::install(layout, &scratch, staged)?;
    Ok(layers)
}

/// The layer where it is unpacked already and its blob is the promised one.
fn existing(
    layout: &Layout,
    diff: &Digest,
    found: &FoundLayer,
) -> Result<Option<Layer>, ImageError> {
    let Some(layer) = layers::find(layout, diff) else {
        return Ok(None);
    };
    match &found.promise {
        Some(promise) if !layout.blob(&promise.digest).exists() => {
            let failed = || ImageError::at("copying", &found.path);
            let mut reader = Hashing::new(File::open(&found.path).map_err(failed())?);
            let mut copy = layout.scratch_file()?;
            io::copy(&mut reader, &mut copy).map_err(failed())?;
            let (_, digest, _) = reader.finish();
            promise.digest.verify("a layer", &digest)?;
            layout.publish(copy, &layout.blob(&digest))?;
        }
        _ => {}
    }
    Ok(Some(layer))
}

fn stage(
    layout: &Layout,
    scratch: &TempDir,
    name: &str,
    diff: &Digest,
    found: &FoundLayer,
    progress: &mut dyn FnMut(String),
) -> Result<Staged, ImageError> {
    let folder = scratch.path().join(name);
    let (staged, devices) = match &found.promise {
        Some(promise) => stage_promised(&folder, diff, &found.path, promise)?,
        None => stage_plain(layout, &folder, diff, &found.path)?,
    };
    if devices > 0 {
        progress(format!(
            "{devices} device files skipped: the runtime provides /dev"
        ));
    }
    Ok(staged)
}

/// Keeps the blob as it is.
fn stage_promised(
    folder: &Path,
    diff: &Digest,
    path: &Path,
    promise: &Promise,
) -> Result<(Staged, u64), ImageError> {
    let file = File::open(path).map_err(ImageError::at("opening", path))?;
    let mut reader = Hashing::new(io::BufReader::new(file));
    let (actual, unpacked) = layers::unpack_into(&mut reader, folder)?;
    io::copy(&mut reader, &mut io::sink()).map_err(ImageError::at("reading", path))?;
    let (_, blob, bytes) = reader.finish();
    promise.digest.verify("a layer", &blob)?;
    diff.verify("an unpacked layer", &actual)?;
    if bytes != promise.bytes {
        return Err(ImageError::archive(format!(
            "layer {blob} has {bytes} bytes, its manifest says {}",
            promise.bytes
        )));
    }
    let layer = Layer {
        diff: actual,
        blob,
        blob_bytes: bytes,
        media_type: promise.media_type.clone(),
        unpacked_bytes: unpacked.bytes,
    };
    let staged = Staged {
        layer,
        folder: folder.to_owned(),
        blob: StagedBlob::File(path.to_owned()),
    };
    Ok((staged, unpacked.devices_skipped))
}

/// Compresses the blob while it is unpacked.
fn stage_plain(
    layout: &Layout,
    folder: &Path,
    diff: &Digest,
    path: &Path,
) -> Result<(Staged, u64), ImageError> {
    let file = File::open(path).map_err(ImageError::at("opening", path))?;
    let file = io::BufReader::new(file);
    let plain = super::compression::decompress(file).map_err(ImageError::at("reading", path))?;
    let (blob, written, (actual, unpacked)) = layers::compress_blob(layout, |out| {
        let mut tee = Tee {
            from: plain,
            into: out,
        };
        layers::unpack_into(&mut tee, folder)
    })?;
    diff.verify("an unpacked layer", &actual)?;
    let staged = Staged {
        layer: written.layer(unpacked.bytes),
        folder: folder.to_owned(),
        blob: StagedBlob::Written(blob),
    };
    Ok((staged, unpacked.devices_skipped))
}

/// Writes what is read.
struct Tee<R, W> {
    from: R,
    into: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.into.write_all(&buffer[..count])?;
        Ok(count)
    }
}
