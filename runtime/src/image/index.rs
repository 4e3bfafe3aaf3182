//! The index of a store: which images there are, and under which names.
//!
//! `index.json` of the OCI layout, one entry per name; what weft needs without reading further
//! is kept in annotations. Changes happen under a lock and replace the file in one rename.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};

use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use super::digest::Digest;
use super::error::ImageError;
use super::layout::Layout;
use super::reference::Reference;

pub(super) const NAME: &str = "io.containerd.image.name";
pub(super) const TAG: &str = "org.opencontainers.image.ref.name";
const ID: &str = "dev.weft.image.id";
const UNPACKED_BYTES: &str = "dev.weft.image.unpacked-bytes";

/// One name of one image, or an image without a name.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) manifest: Digest,
    pub(super) manifest_bytes: u64,
    /// Digest of the configuration.
    pub(super) id: Digest,
    pub(super) name: Option<Reference>,
    pub(super) unpacked_bytes: u64,
}

/// All entries, in the order they were added.
pub(super) fn read(layout: &Layout) -> Result<Vec<Entry>, ImageError> {
    let path = layout.index();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ImageError::at("reading", &path)(error)),
    };
    let index: ImageIndex = serde_json::from_slice(&bytes)
        .map_err(|error| ImageError::at("parsing", &path)(io::Error::other(error)))?;
    Ok(index.manifests().iter().filter_map(from_wire).collect())
}

/// Changes the index; concurrent changes wait for each other.
pub(super) fn update<T>(
    layout: &Layout,
    change: impl FnOnce(&mut Vec<Entry>) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let _lock = layout.index_lock()?;
    let mut entries = read(layout)?;
    let result = change(&mut entries)?;
    let mut index = ImageIndex::default();
    index.set_schema_version(2);
    index.set_media_type(Some(MediaType::ImageIndex));
    index.set_manifests(entries.iter().map(to_wire).collect());
    let path = layout.index();
    let bytes = serde_json::to_vec_pretty(&index)
        .map_err(|error| ImageError::at("writing", &path)(io::Error::other(error)))?;
    let mut file = layout.scratch_file()?;
    file.write_all(&bytes)
        .map_err(ImageError::at("writing", &path))?;
    layout.publish(file, &path)?;
    Ok(result)
}

/// Adds an image under its names; a name moves here from the image that had it.
pub(super) fn add(layout: &Layout, image: &Entry, names: &[Reference]) -> Result<(), ImageError> {
    update(layout, |entries| {
        let orphans: Vec<Entry> = entries
            .extract_if(.., |entry| {
                entry.name.as_ref().is_some_and(|name| names.contains(name))
            })
            .collect();
        entries.retain(|entry| entry.id != image.id || entry.name.is_some());
        for name in names {
            entries.push(Entry {
                name: Some(name.clone()),
                ..image.clone()
            });
        }
        if !entries.iter().any(|entry| entry.id == image.id) {
            entries.push(image.clone());
        }
        for orphan in orphans {
            keep_nameless(entries, orphan);
        }
        Ok(())
    })
}

/// An image whose last name went away stays reachable by its id.
pub(super) fn keep_nameless(entries: &mut Vec<Entry>, orphan: Entry) {
    if !entries.iter().any(|entry| entry.id == orphan.id) {
        entries.push(Entry {
            name: None,
            ..orphan
        });
    }
}

fn to_wire(entry: &Entry) -> Descriptor {
    let mut annotations = HashMap::from([
        (ID.to_owned(), entry.id.to_string()),
        (UNPACKED_BYTES.to_owned(), entry.unpacked_bytes.to_string()),
    ]);
    if let Some(name) = &entry.name {
        annotations.insert(NAME.to_owned(), name.to_string());
        annotations.insert(TAG.to_owned(), name.tag().to_owned());
    }
    let mut descriptor = descriptor(
        MediaType::ImageManifest,
        &entry.manifest,
        entry.manifest_bytes,
    );
    descriptor.set_annotations(Some(annotations));
    descriptor
}

fn from_wire(descriptor: &Descriptor) -> Option<Entry> {
    let annotations = descriptor.annotations().as_ref()?;
    Some(Entry {
        manifest: descriptor.digest().to_string().parse().ok()?,
        manifest_bytes: descriptor.size(),
        id: annotations.get(ID)?.parse().ok()?,
        name: annotations.get(NAME).and_then(|name| name.parse().ok()),
        unpacked_bytes: annotations.get(UNPACKED_BYTES)?.parse().ok()?,
    })
}

/// A descriptor of content whose digest we computed.
pub(super) fn descriptor(media_type: MediaType, digest: &Digest, bytes: u64) -> Descriptor {
    let digest = digest
        .to_string()
        .parse::<oci_spec::image::Digest>()
        .expect("our digests are valid OCI digests");
    Descriptor::new(media_type, bytes, digest)
}
