//! Writes an image of the store as an archive: an OCI image layout with docker's manifest beside it.

use std::fs::File;
use std::io::{self, Read, Write};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::digest::Digest;
use super::error::ImageError;
use super::index::{self, Entry, NAME, TAG, descriptor};
use super::layout::Layout;
use super::reference::Reference;

/// Writes the image `id`, under the name it was asked for by where that is one.
pub(super) fn export(
    layout: &Layout,
    entries: &[Entry],
    id: &Digest,
    reference: &str,
    out: impl Write,
) -> Result<(), ImageError> {
    let entry = entries.iter().find(|entry| &entry.id == id);
    let entry = entry.ok_or_else(|| ImageError::NotFound {
        reference: reference.to_owned(),
    })?;
    let name = chosen_name(entries, id, reference);
    let manifest = layout.read_blob(&entry.manifest)?;
    let parsed: ImageManifest = serde_json::from_slice(&manifest)
        .map_err(|error| ImageError::io("parsing a manifest of the store")(error.into()))?;
    let layers = digests(parsed.layers())?;
    let config = layout.read_blob(id)?;

    let mut archive = Archive {
        builder: Builder::new(out),
    };
    archive.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.bytes("index.json", &index_of(entry, name.as_ref())?)?;
    archive.bytes(
        "manifest.json",
        &docker_manifest(id, &layers, name.as_ref()),
    )?;
    archive.bytes(&blob_name(&entry.manifest), &manifest)?;
    archive.bytes(&blob_name(id), &config)?;
    let mut written = Vec::new();
    for layer in layers {
        // An image may contain a layer twice, an archive better not.
        if !written.contains(&layer) {
            archive.blob(layout, &layer)?;
            written.push(layer);
        }
    }
    archive.finish()
}

struct Archive<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> Archive<W> {
    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        self.append(name, bytes.len() as u64, bytes)
    }

    fn blob(&mut self, layout: &Layout, digest: &Digest) -> Result<(), ImageError> {
        let path = layout.blob(digest);
        let file = File::open(&path).map_err(ImageError::at("opening", &path))?;
        let size = file
            .metadata()
            .map_err(ImageError::at("reading", &path))?
            .len();
        self.append(&blob_name(digest), size, file)
    }

    fn append(&mut self, name: &str, size: u64, content: impl Read) -> Result<(), ImageError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        let written = self.builder.append_data(&mut header, name, content);
        written.map_err(ImageError::io(format!("writing {name}")))
    }

    fn finish(self) -> Result<(), ImageError> {
        let finished = self.builder.into_inner().and_then(|mut out| out.flush());
        finished.map_err(ImageError::io("writing the archive"))
    }
}

fn chosen_name(entries: &[Entry], id: &Digest, reference: &str) -> Option<Reference> {
    let asked = reference.parse::<Reference>().ok();
    let mut names: Vec<&Reference> = super::names(entries, id).collect();
    names.sort_by_key(|name| Some(*name) != asked.as_ref());
    names.first().map(|name| (*name).clone())
}

fn index_of(entry: &Entry, name: Option<&Reference>) -> Result<Vec<u8>, ImageError> {
    let mut manifest = descriptor(
        MediaType::ImageManifest,
        &entry.manifest,
        entry.manifest_bytes,
    );
    if let Some(name) = name {
        let annotations = [(NAME, name.to_string()), (TAG, name.tag().to_owned())];
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value));
        manifest.set_annotations(Some(annotations.into()));
    }
    let mut index = ImageIndex::default();
    index.set_schema_version(2);
    index.set_media_type(Some(MediaType::ImageIndex));
    index.set_manifests(vec![manifest]);
    serde_json::to_vec(&index)
        .map_err(|error| ImageError::io("writing an index")(io::Error::from(error)))
}

fn docker_manifest(id: &Digest, layers: &[Digest], name: Option<&Reference>) -> Vec<u8> {
    let layers: Vec<String> = layers.iter().map(blob_name).collect();
    let tags: Vec<String> = name.iter().map(|name| name.familiar()).collect();
    json!([{ "Config": blob_name(id), "RepoTags": tags, "Layers": layers }])
        .to_string()
        .into_bytes()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digests of a manifest's layers.
pub(super) fn digests(descriptors: &[Descriptor]) -> Result<Vec<Digest>, ImageError> {
    descriptors
        .iter()
        .map(|descriptor| descriptor.digest().to_string().parse())
        .collect()
}

/// All blobs that an image needs.
pub(super) fn blobs_of(layout: &Layout, entry: &index::Entry) -> Result<Vec<Digest>, ImageError> {
    let manifest = layout.read_blob(&entry.manifest)?;
    let parsed: ImageManifest = serde_json::from_slice(&manifest)
        .map_err(|error| ImageError::io("parsing a manifest of the store")(error.into()))?;
    let mut blobs = digests(parsed.layers())?;
    blobs.extend([entry.manifest.clone(), entry.id.clone()]);
    Ok(blobs)
}
