//! The last good resources on disk, so that a restarted sidecar serves without its control plane.
//!
//! One protobuf file, replaced atomically. It belongs to one node: what another node left is not used. A file
//! that cannot be read is as good as none, and is said so once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;
use weft_proto::Any;

/// File name in the state directory.
const FILE_NAME: &str = "xds.pb";

/// All resources that were in force.
#[derive(Clone, PartialEq, Message)]
pub struct Stored {
    /// The node they are for.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// Of every kind.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<StoredResource>,
}

/// One resource as it came.
#[derive(Clone, PartialEq, Message)]
pub struct StoredResource {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The server's version of it.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Its bytes; the type URL tells the kind.
    #[prost(message, optional, tag = "3")]
    pub resource: Option<Any>,
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{}: the last good configuration cannot be kept; check that the directory is writable", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what we wrote.
    #[error("{}: not a stored configuration; remove the file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with the bytes.
        source: prost::DecodeError,
    },
    /// It was written for another node.
    #[error("{}: written for node {found:?}; remove the file", path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// The node in it.
        found: String,
    },
}

/// The file of one state directory.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The file in `state_dir`, whether or not it exists.
    pub fn in_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(FILE_NAME),
        }
    }

    /// What was written last for this node; none where nothing was.
    pub fn load(&self, node_id: &str) -> Result<Option<Stored>, StoreError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io(source)),
        };
        let stored = Stored::decode(bytes.as_slice()).map_err(|source| StoreError::Malformed {
            path: self.path.clone(),
            source,
        })?;
        if stored.node_id != node_id {
            return Err(StoreError::OtherNode {
                path: self.path.clone(),
                found: stored.node_id,
            });
        }
        Ok(Some(stored))
    }

    /// Replaces what is stored.
    pub fn save(&self, stored: &Stored) -> Result<(), StoreError> {
        write_atomically(&self.path, &stored.encode_to_vec()).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// Replaces a file by one with this content that only its owner may read: readers see the old or the new one
/// whole, after a crash too. Its directory is made where it is missing.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    // A name of its own: a proxy and the one that replaces it may write at the same time.
    let temporary = path.with_extension(format!("new-{:08x}", rand::random::<u32>()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let replaced = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    replaced?;
    // The new name must be on disk too (rename(2) alone does not promise it).
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn stored() -> Stored {
        Stored {
            node_id: "sidecar~a.default".into(),
            resources: vec![StoredResource {
                name: "reviews".into(),
                version: "7".into(),
                resource: Some(Any {
                    type_url: "x/y".into(),
                    value: vec![1, 2].into(),
                }),
            }],
        }
    }

    #[test]
    fn what_was_saved_is_loaded_by_the_same_node() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::in_dir(&dir.path().join("made"));

        store.save(&stored()).expect("saved");

        assert_eq!(
            store.load("sidecar~a.default").expect("loaded"),
            Some(stored())
        );
        let mode = fs::metadata(&store.path)
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_saved_is_nothing_loaded() {
        let dir = tempfile::tempdir().expect("directory");

        assert_eq!(Store::in_dir(dir.path()).load("a").expect("loaded"), None);
    }

    #[test]
    fn another_nodes_configuration_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::in_dir(dir.path());
        store.save(&stored()).expect("saved");

        let error = store.load("sidecar~b.default").expect_err("refused");

        assert!(matches!(error, StoreError::OtherNode { .. }), "{error}");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().expect("directory");
        let store = Store::in_dir(dir.path());
        fs::write(&store.path, b"\xff\xff\xff").expect("written");

        assert!(matches!(store.load("a"), Err(StoreError::Malformed { .. })));
    }
}
