//! Where the store keeps what on disk, and how files get there whole.
//!
//! The folder is an OCI image layout (`oci-layout`, `index.json`, `blobs/`) that other tools can
//! read, with the unpacked `layers/` and the build `cache/` beside it. Everything appears under
//! its final name complete: it is written into `temporary/`, flushed, and renamed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use tempfile::{NamedTempFile, TempDir};

use super::digest::{Digest, Hashing};
use super::error::ImageError;

/// Metadata (manifests, configurations, indexes) larger than this is not metadata.
pub(super) const METADATA_BYTES: u64 = 8 << 20;

/// The folder of a store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes what is missing, and clears what an interrupted process left.
    pub(super) fn open(root: &Path) -> Result<Layout, ImageError> {
        let layout = Layout {
            root: root.to_owned(),
        };
        for part in ["blobs/sha256", "layers", "cache", "temporary"] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(ImageError::at("making", &path))?;
        }
        let marker = root.join("oci-layout");
        if !marker.exists() {
            fs::write(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)
                .map_err(ImageError::at("writing", &marker))?;
        }
        if let Some(_alone) = layout.try_exclusive()? {
            layout.clear_temporary()?;
        }
        Ok(layout)
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn layer(&self, diff: &Digest) -> PathBuf {
        self.layers().join(diff.hex())
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// A scratch folder that is removed when dropped.
    pub(super) fn scratch(&self) -> Result<TempDir, ImageError> {
        let parent = self.root.join("temporary");
        TempDir::new_in(&parent).map_err(ImageError::at("making a folder in", &parent))
    }

    /// A file of the scratch folder, for `publish`.
    pub(super) fn scratch_file(&self) -> Result<NamedTempFile, ImageError> {
        let parent = self.root.join("temporary");
        NamedTempFile::new_in(&parent).map_err(ImageError::at("making a file in", &parent))
    }

    /// Held by whoever adds content: it keeps the collector away, not other adders.
    pub(super) fn shared(&self) -> Result<File, ImageError> {
        self.lock("lock", FlockOperation::LockShared)
    }

    /// Held by the collector. None while somebody adds content.
    pub(super) fn try_exclusive(&self) -> Result<Option<File>, ImageError> {
        match self.lock("lock", FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(ImageError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Held for the few lines that read, change and write the index.
    pub(super) fn index_lock(&self) -> Result<File, ImageError> {
        self.lock("index.lock", FlockOperation::LockExclusive)
    }

    fn lock(&self, name: &str, operation: FlockOperation) -> Result<File, ImageError> {
        let path = self.root.join(name);
        // Opened anew each time: a lock belongs to the open file, so threads exclude each other too.
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(ImageError::at("opening", &path))?;
        rustix::fs::flock(&file, operation).map_err(ImageError::sys("locking", &path))?;
        Ok(file)
    }

    /// Puts a complete scratch file under its final name, surviving a crash.
    pub(super) fn publish(&self, file: NamedTempFile, path: &Path) -> Result<(), ImageError> {
        file.as_file()
            .sync_all()
            .map_err(ImageError::at("flushing", path))?;
        file.persist(path)
            .map_err(|error| ImageError::at("renaming into", path)(error.error))?;
        sync_parent(path)
    }

    /// Stores content that is already in memory.
    pub(super) fn put_blob(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        let path = self.blob(&digest);
        if !path.exists() {
            let mut file = self.scratch_file()?;
            file.write_all(bytes)
                .map_err(ImageError::at("writing", &path))?;
            self.publish(file, &path)?;
        }
        Ok(digest)
    }

    /// Reads a metadata blob and verifies it.
    pub(super) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob(digest);
        let file = File::open(&path).map_err(ImageError::at("opening", &path))?;
        let mut reader = Hashing::new(file.take(METADATA_BYTES));
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(ImageError::at("reading", &path))?;
        let (_, actual, _) = reader.finish();
        digest.verify(&path.display().to_string(), &actual)?;
        Ok(bytes)
    }

    fn clear_temporary(&self) -> Result<(), ImageError> {
        let parent = self.root.join("temporary");
        let entries = fs::read_dir(&parent).map_err(ImageError::at("listing", &parent))?;
        for entry in entries.flatten() {
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                _ => fs::remove_file(entry.path()),
            };
            if let Err(error) = removed {
                tracing::warn!(path = %entry.path().display(), %error, "left-over file not removed");
            }
        }
        Ok(())
    }
}

/// Makes a rename in the folder of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), ImageError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(ImageError::at("flushing", parent))
}
