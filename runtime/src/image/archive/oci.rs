//! Images of an OCI image layout, with the choice of the platform that runs here.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use super::{Bundle, FoundImage, FoundLayer, Promise};
use crate::image::config::{Document, host_architecture};
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::index::{NAME, TAG};
use crate::image::reference::Reference;

/// Indexes inside of indexes that are followed.
const DEPTH: usize = 4;
/// Manifests that are looked at.
const MANIFESTS: usize = 1000;

/// The images that run on this machine, each with all of its names.
pub(super) fn images(bundle: &Bundle) -> Result<Vec<FoundImage>, ImageError> {
    let index = parse_index(&bundle.metadata("index.json")?)?;
    let mut search = Search {
        bundle,
        seen: 0,
        found: Vec::new(),
        others: BTreeSet::new(),
    };
    search.index(&index, &[], 0)?;
    if search.found.is_empty() {
        let others: Vec<String> = search.others.into_iter().collect();
        let has = if others.is_empty() {
            "none".to_owned()
        } else {
            others.join(", ")
        };
        return Err(ImageError::archive(format!(
            "it has no image for linux/{}, but for: {has}",
            host_architecture()
        )));
    }
    Ok(search.found.into_iter().map(|(_, image)| image).collect())
}

struct Search<'b> {
    bundle: &'b Bundle,
    seen: usize,
    found: Vec<(Digest, FoundImage)>,
    /// Platforms that do not run here.
    others: BTreeSet<String>,
}

impl Search<'_> {
    fn index(
        &mut self,
        index: &ImageIndex,
        names: &[Reference],
        depth: usize,
    ) -> Result<(), ImageError> {
        if depth >= DEPTH {
            return Err(ImageError::archive("indexes nested too deep"));
        }
        for descriptor in index.manifests() {
            self.seen += 1;
            if self.seen > MANIFESTS {
                return Err(ImageError::archive("more than 1000 manifests"));
            }
            let own = names_of(descriptor);
            let names = if own.is_empty() { names } else { &own };
            self.descriptor(descriptor, names, depth)?;
        }
        Ok(())
    }

    fn descriptor(
        &mut self,
        descriptor: &Descriptor,
        names: &[Reference],
        depth: usize,
    ) -> Result<(), ImageError> {
        if let Some(platform) = descriptor.platform() {
            let (os, architecture) = (
                platform.os().to_string(),
                platform.architecture().to_string(),
            );
            if os != "linux" || architecture != host_architecture() {
                self.others.insert(format!("{os}/{architecture}"));
                return Ok(());
            }
        }
        let digest = digest_of(descriptor)?;
        let name = blob_name(&digest);
        // Docker's archives of multi-platform images list platforms that they do not contain.
        if self.bundle.path(&name).is_none() && depth > 0 {
            self.others
                .insert("one whose manifest is missing".to_owned());
            return Ok(());
        }
        let bytes = blob(self.bundle, &digest)?;
        match descriptor.media_type() {
            MediaType::ImageIndex => self.index(&parse_index(&bytes)?, names, depth + 1),
            MediaType::Other(kind)
                if kind == "application/vnd.docker.distribution.manifest.list.v2+json" =>
            {
                self.index(&parse_index(&bytes)?, names, depth + 1)
            }
            _ => self.manifest(digest, bytes, names),
        }
    }

    fn manifest(
        &mut self,
        digest: Digest,
        bytes: Vec<u8>,
        names: &[Reference],
    ) -> Result<(), ImageError> {
        if let Some((_, known)) = self.found.iter_mut().find(|(known, _)| *known == digest) {
            known.names.extend(names.iter().cloned());
            return Ok(());
        }
        let manifest: ImageManifest = serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::archive(format!("manifest {digest}: {error}")))?;
        let kind = manifest.config().media_type().to_string();
        if !kind.ends_with("image.config.v1+json") && !kind.ends_with("container.image.v1+json") {
            self.others.insert(format!("artifact {kind}"));
            return Ok(());
        }
        let config = blob(self.bundle, &digest_of(manifest.config())?)?;
        let document = Document::parse(&config)?;
        if !document.runs_here() {
            self.others
                .insert(format!("{}/{}", document.os, document.architecture));
            return Ok(());
        }
        let layers = manifest.layers().iter().map(|layer| self.layer(layer));
        let image = FoundImage {
            names: names.to_vec(),
            config,
            layers: layers.collect::<Result<_, _>>()?,
            manifest: Some(bytes),
        };
        self.found.push((digest, image));
        Ok(())
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<FoundLayer, ImageError> {
        let digest = digest_of(descriptor)?;
        let media_type = descriptor.media_type().to_string();
        let Some(path) = self.bundle.path(&blob_name(&digest)) else {
            return Err(ImageError::archive(format!(
                "layer {digest} ({media_type}) is missing"
            )));
        };
        Ok(FoundLayer {
            path: path.to_owned(),
            promise: Some(Promise {
                digest,
                bytes: descriptor.size(),
                media_type,
            }),
        })
    }
}

fn parse_index(bytes: &[u8]) -> Result<ImageIndex, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::archive(format!("index: {error}")))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(bundle: &Bundle, digest: &Digest) -> Result<Vec<u8>, ImageError> {
    let name = blob_name(digest);
    let bytes = bundle.metadata(&name)?;
    digest.verify(&name, &Digest::of(&bytes))?;
    Ok(bytes)
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest, ImageError> {
    descriptor.digest().to_string().parse()
}

/// containerd's annotation holds the whole name. The specification's is "a name", in practice
/// either a whole one or only a tag.
fn names_of(descriptor: &Descriptor) -> Vec<Reference> {
    let Some(annotations) = descriptor.annotations() else {
        return Vec::new();
    };
    let whole = annotations.get(NAME).map(String::as_str);
    let is_tag = |name: &&str| *name == "latest" || name.starts_with(|c: char| c.is_ascii_digit());
    let name = annotations.get(TAG).map(String::as_str);
    let name = whole.or(name.filter(|name| name.contains([':', '/']) || !is_tag(name)));
    name.and_then(|name| name.parse().ok())
        .into_iter()
        .collect()
}
