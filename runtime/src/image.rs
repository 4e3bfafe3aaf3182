//! Images: a store of layers and configurations, import and export of archives, Dockerfile builds.
//!
//! The node's image calls end here. Everything blocks; callers use `spawn_blocking`. The store
//! runs as root of the mesh's user namespace, where files can get the owners their images ask
//! for, and works for an ordinary user whose images ask for no other owner than that user.
//!
//! Guarantees: content is what its digest says; what the store lists is complete, after a crash
//! too; any number of threads and processes may use one folder; archives from strangers cannot
//! write outside of their layer or exhaust memory.

mod archive;
mod build;
mod compression;
mod config;
mod digest;
mod dockerfile;
mod error;
mod export;
mod import;
mod index;
mod layer;
mod layers;
mod layout;
mod prune;
mod reference;
mod stack;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

pub use build::{BuildRequest, RunCommand, RunStep};
pub use config::{Healthcheck, ImageConfig};
pub use error::ImageError;
pub use prune::Pruned;

use config::Document;
use digest::Digest;
use layout::Layout;
use reference::Reference;

/// The images of one folder.
#[derive(Debug, Clone)]
pub struct ImageStore {
    layout: Layout,
}

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// `sha256:…`, the digest of the configuration.
    pub id: String,
    /// Its names as people write them, `redis:7`; sorted, possibly none.
    pub references: Vec<String>,
    /// Bytes of file content in all layers.
    pub size_bytes: u64,
    /// Seconds since the epoch.
    pub created_at: i64,
    /// What its containers run.
    pub config: ImageConfig,
    /// Folders of the layers, lowest first: lower folders of an overlay mounted with `userxattr`.
    pub layers: Vec<PathBuf>,
}

/// What `ImageStore::remove` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// One name is gone, the image has others.
    Untagged(String),
    /// The image with this id is gone from the list; its files go with the next `prune`.
    Deleted(String),
}

impl ImageStore {
    /// Opens the store in `dir`, which is made where it is missing.
    pub fn open(dir: &Path) -> Result<ImageStore, ImageError> {
        let layout = Layout::open(dir)?;
        Ok(ImageStore { layout })
    }

    /// All images, newest first. One that cannot be read is left out and logged.
    pub fn list(&self) -> Vec<ImageRecord> {
        let entries = index::read(&self.layout).unwrap_or_else(|error| {
            tracing::error!(%error, "index of the image store not readable");
            Vec::new()
        });
        let ids: BTreeSet<&Digest> = entries.iter().map(|entry| &entry.id).collect();
        let mut images: Vec<ImageRecord> = ids
            .into_iter()
            .filter_map(|id| match self.record(&entries, id) {
                Ok(image) => Some(image),
                Err(error) => {
                    tracing::error!(image = %id, %error, "image not readable");
                    None
                }
            })
            .collect();
        images.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.id.cmp(&b.id)));
        images
    }

    /// The image with this name, id, or beginning of an id.
    pub fn find(&self, reference: &str) -> Result<ImageRecord, ImageError> {
        let entries = index::read(&self.layout)?;
        let id = resolve(&entries, reference)?;
        self.record(&entries, &id)
    }

    /// Takes the images of an OCI or docker archive into the store; returns the first of them.
    ///
    /// `reference` names it in the place of the name inside of the archive, which must then hold
    /// a single image. `progress` is told lines for people.
    pub fn import(
        &self,
        mut archive: impl Read,
        reference: Option<&str>,
        progress: &mut dyn FnMut(String),
    ) -> Result<ImageRecord, ImageError> {
        let id = import::import(&self.layout, &mut archive, reference, progress)?;
        self.find(&id.to_string())
    }

    /// Builds an image from a Dockerfile and its context, a tar archive.
    ///
    /// Steps whose inputs did not change are taken from the cache: building twice gives the same
    /// id. `runner` carries out `RUN`.
    pub fn build(
        &self,
        mut context: impl Read,
        request: BuildRequest,
        runner: &dyn RunStep,
        progress: &mut dyn FnMut(String),
    ) -> Result<ImageRecord, ImageError> {
        let id = build::build(self, &mut context, &request, runner, progress)?;
        self.find(&id.to_string())
    }

    /// Writes an image as an OCI archive that `docker load` reads too.
    pub fn export(&self, reference: &str, out: impl Write) -> Result<(), ImageError> {
        let entries = index::read(&self.layout)?;
        let id = resolve(&entries, reference)?;
        let _shared = self.layout.shared()?;
        export::export(&self.layout, &entries, &id, reference, out)
    }

    /// Gives an image one more name, taking it from the image that had it.
    pub fn tag(&self, reference: &str, name: &str) -> Result<ImageRecord, ImageError> {
        let name: Reference = name.parse()?;
        let entries = index::read(&self.layout)?;
        let id = resolve(&entries, reference)?;
        if let Some(entry) = entries.iter().find(|entry| entry.id == id) {
            let mut names: Vec<Reference> = names(&entries, &id).cloned().collect();
            names.push(name);
            index::add(&self.layout, entry, &names)?;
        }
        self.find(&id.to_string())
    }

    /// Takes away a name, or with an id the image with all of its names.
    ///
    /// Files stay until `prune`, since containers may still run on them.
    pub fn remove(&self, reference: &str) -> Result<Removed, ImageError> {
        index::update(&self.layout, |entries| {
            let id = resolve(entries, reference)?;
            let name = reference.parse::<Reference>().ok();
            let named = |entry: &index::Entry| entry.name.is_some() && entry.name == name;
            if entries.iter().any(named) {
                entries.retain(|entry| !named(entry));
            } else {
                entries.retain(|entry| entry.id != id);
            }
            let is_left = entries.iter().any(|entry| entry.id == id);
            Ok(match is_left {
                true => Removed::Untagged(reference.to_owned()),
                false => Removed::Deleted(id.to_string()),
            })
        })
    }

    /// Deletes blobs, layers and old cache entries that no image needs, except layers `in_use`
    /// by containers. Does nothing while an import or build is under way.
    pub fn prune(&self, in_use: &BTreeSet<PathBuf>) -> Result<Pruned, ImageError> {
        prune::prune(&self.layout, in_use)
    }

    fn record(&self, entries: &[index::Entry], id: &Digest) -> Result<ImageRecord, ImageError> {
        let document = Document::parse(&self.layout.read_blob(id)?)?;
        let diffs = &document.rootfs.diff_ids;
        let size = entries.iter().find(|entry| &entry.id == id);
        let mut references: Vec<String> = names(entries, id).map(Reference::familiar).collect();
        references.sort();
        Ok(ImageRecord {
            id: id.to_string(),
            references,
            size_bytes: size.map_or(0, |entry| entry.unpacked_bytes),
            created_at: document.created_at(),
            layers: diffs.iter().map(|diff| self.layout.layer(diff)).collect(),
            config: document.config,
        })
    }
}

fn names<'e>(entries: &'e [index::Entry], id: &'e Digest) -> impl Iterator<Item = &'e Reference> {
    let of_image = entries.iter().filter(move |entry| &entry.id == id);
    of_image.filter_map(|entry| entry.name.as_ref())
}

/// Finds by digest, by name, then by the beginning of an id.
fn resolve(entries: &[index::Entry], reference: &str) -> Result<Digest, ImageError> {
    let not_found = || ImageError::NotFound {
        reference: reference.to_owned(),
    };
    if let Ok(digest) = reference.parse::<Digest>() {
        let by_digest = entries
            .iter()
            .find(|entry| entry.id == digest || entry.manifest == digest);
        return by_digest
            .map(|entry| entry.id.clone())
            .ok_or_else(not_found);
    }
    let name = reference.parse::<Reference>();
    if let Ok(name) = &name {
        let matches = |entry: &&index::Entry| match name.digest() {
            Some(digest) => entry.manifest == *digest || entry.id == *digest,
            None => entry.name.as_ref() == Some(name),
        };
        if let Some(entry) = entries.iter().find(matches) {
            return Ok(entry.id.clone());
        }
    }
    let prefix = reference.strip_prefix("sha256:").unwrap_or(reference);
    let is_prefix = prefix.len() >= 4 && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ids: BTreeSet<&Digest> = entries
        .iter()
        .map(|entry| &entry.id)
        .filter(|id| is_prefix && id.hex().starts_with(prefix))
        .collect();
    match (ids.len(), ids.first()) {
        (1, Some(id)) => Ok((*id).clone()),
        (0, _) => Err(name.err().filter(|_| !is_prefix).unwrap_or_else(not_found)),
        _ => Err(ImageError::Ambiguous {
            prefix: prefix.to_owned(),
            ids: ids.iter().map(|id| id.hex()[..12].to_owned()).collect(),
        }),
    }
}
