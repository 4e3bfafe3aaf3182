//! Image archives: OCI image layouts and what `docker save` writes, plain, gzip or zstd.
//!
//! An archive's files come in any order, so they are spooled into a scratch folder first, under
//! numbers; names are only ever keys of a map. Nothing is believed that its digest does not prove.

pub(super) mod docker;
pub(super) mod oci;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;
use tempfile::TempDir;

use super::compression::decompress;
use super::digest::Digest;
use super::error::ImageError;
use super::layer::entries::{self, Entry, Limits};
use super::layer::path::clean;
use super::layout::{Layout, METADATA_BYTES};
use super::reference::Reference;

/// Links of an archive that may be followed in a row.
const LINKS: usize = 8;

const ARCHIVE: Limits = Limits {
    bytes: 128 << 30,
    entries: 100_000,
};

/// One image of an archive. Digests of the layers are still to be verified.
pub(super) struct FoundImage {
    pub(super) names: Vec<Reference>,
    pub(super) config: Vec<u8>,
    pub(super) layers: Vec<FoundLayer>,
    /// The manifest as the archive has it; docker archives have none.
    pub(super) manifest: Option<Vec<u8>>,
}

/// One layer of an image of an archive.
#[derive(Debug, Clone)]
pub(super) struct FoundLayer {
    pub(super) path: PathBuf,
    /// What the manifest promises; docker archives promise nothing.
    pub(super) promise: Option<Promise>,
}

/// What a manifest says of a layer.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) media_type: String,
}

/// All files of an archive, on disk.
pub(super) struct Bundle {
    scratch: TempDir,
    files: BTreeMap<PathBuf, Stored>,
    stored: u64,
}

enum Stored {
    File(PathBuf),
    Link(PathBuf),
}

impl Bundle {
    /// Reads a whole archive.
    pub(super) fn spool(source: &mut dyn Read, layout: &Layout) -> Result<Bundle, ImageError> {
        let mut bundle = Bundle {
            scratch: layout.scratch()?,
            files: BTreeMap::new(),
            stored: 0,
        };
        let mut plain = decompress(source).map_err(ImageError::io("reading the archive"))?;
        entries::for_each(&mut plain, ARCHIVE, |entry| bundle.store(entry))?;
        Ok(bundle)
    }

    /// The images in it.
    pub(super) fn images(&self) -> Result<Vec<FoundImage>, ImageError> {
        if self.path("index.json").is_some() {
            return oci::images(self);
        }
        if self.path("manifest.json").is_some() {
            return docker::images(self);
        }
        Err(ImageError::archive(
            "it has neither index.json (OCI image layout) nor manifest.json (docker save)",
        ))
    }

    /// Where a file of the archive is.
    pub(super) fn path(&self, name: &str) -> Option<&Path> {
        let mut name = clean(name.as_bytes()).ok()?;
        for _ in 0..LINKS {
            match self.files.get(&name)? {
                Stored::File(path) => return Some(path),
                Stored::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// A small file of the archive.
    pub(super) fn metadata(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let path = self
            .path(name)
            .ok_or_else(|| ImageError::archive(format!("{name} is missing")))?;
        let file = File::open(path).map_err(ImageError::at("opening", path))?;
        let mut bytes = Vec::new();
        file.take(METADATA_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(ImageError::at("reading", path))?;
        if bytes.len() as u64 > METADATA_BYTES {
            return Err(ImageError::TooLarge {
                what: format!("{name} of the archive"),
                limit: format!("{METADATA_BYTES} bytes"),
            });
        }
        Ok(bytes)
    }

    fn store(&mut self, entry: &mut Entry<'_, '_>) -> Result<(), ImageError> {
        let raw = entry.path_bytes().into_owned();
        let lossy = || PathBuf::from(OsStr::from_bytes(&raw));
        let name = clean(&raw).map_err(|reason| ImageError::entry(&lossy(), reason))?;
        let stored = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                self.stored += 1;
                let path = self.scratch.path().join(self.stored.to_string());
                let mut file = File::create(&path).map_err(ImageError::at("making", &path))?;
                std::io::copy(entry, &mut file).map_err(ImageError::at("writing", &path))?;
                Stored::File(path)
            }
            EntryType::Symlink => {
                let parent = name.parent().unwrap_or(Path::new(""));
                Stored::Link(resolve(parent, &link(entry)))
            }
            EntryType::Link => Stored::Link(resolve(Path::new(""), &link(entry))),
            _ => return Ok(()),
        };
        // The later entry of a name wins.
        if let Some(Stored::File(old)) = self.files.insert(name, stored) {
            fs::remove_file(&old).map_err(ImageError::at("removing", &old))?;
        }
        Ok(())
    }
}

fn link(entry: &Entry<'_, '_>) -> PathBuf {
    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
    PathBuf::from(OsStr::from_bytes(&target))
}

/// The target of a link as a name of the archive; `..` above its root stays at the root.
fn resolve(parent: &Path, target: &Path) -> PathBuf {
    let mut name = parent.to_owned();
    for part in target.components() {
        match part {
            Component::RootDir => name.clear(),
            Component::ParentDir => {
                name.pop();
            }
            Component::Normal(part) => name.push(part),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    name
}
