//! Resources from a file: a discovery response that is read again whenever a file is moved to its place.
//!
//! As in Envoy only moves count, since a file that is written in place would be read when half of it is there. Where a
//! directory is named, any move within it counts: so symbolic links are followed that are changed as a whole.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_proto::envoy::service::discovery::v3::DiscoveryResponse;
use weft_proto::json;

use super::dialogue::{Dialogue, Update};
use super::kind::Kind;
use super::metrics::Metrics;
use super::origin::Origin;
use super::state::State;
use super::state_of_the_world::StateOfTheWorld;
use super::translate::chain;
use super::watch::{Changes, Watched};

/// The largest file.
const MAX_BYTES: u64 = 64 << 20;

/// A file with resources of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    path: PathBuf,
    watched: Watched,
    /// Whether a change of any file in the directory means that this one has changed.
    by_directory: bool,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("{}: more than {MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// It holds no discovery response.
    #[error("{}: no discovery response: {reason}", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Where, and what.
        reason: String,
    },
}

impl FileSource {
    /// A file whose moves tell of its changes.
    pub fn new(path: PathBuf) -> Self {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Self {
            watched: Watched::directory(parent),
            by_directory: false,
            path,
        }
    }

    /// A file, and the directory whose changes tell of its own.
    pub fn within(path: PathBuf, watched: Watched) -> Self {
        Self {
            path,
            watched,
            by_directory: true,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is away, too large, or no discovery response in YAML, JSON or, as `.pb`, in binary form.
    pub fn read(&self) -> Result<DiscoveryResponse, FileError> {
        let path = self.path.clone();
        let read = std::fs::metadata(&path).and_then(|metadata| match metadata.len() {
            ..=MAX_BYTES => std::fs::read(&path).map(Some),
            _ => Ok(None),
        });
        match read {
            Ok(Some(content)) => {
                parse(&path, &content).map_err(|reason| FileError::Shape { path, reason })
            }
            Ok(None) => Err(FileError::TooLarge(path)),
            Err(source) => Err(FileError::Read { path, source }),
        }
    }

    fn is_meant(&self, moved: Option<&CStr>) -> bool {
        let name = moved.map(|name| OsStr::from_bytes(name.to_bytes()));
        self.by_directory || name.is_some() && name == self.path.file_name()
    }
}

fn parse(path: &Path, content: &[u8]) -> Result<DiscoveryResponse, String> {
    if path.extension() == Some(OsStr::new("pb")) {
        return DiscoveryResponse::decode(content).map_err(|error| error.to_string());
    }
    let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
    // JSON is YAML, so one parser reads both.
    let value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    json::checked_from_json(value).map_err(|error| chain(&error))
}

/// Takes what a file holds, now and whenever it changes or another of its resources is wanted, until cancelled.
pub async fn follow(
    kind: Kind,
    source: FileSource,
    state: Arc<State>,
    metrics: Metrics,
    cancel: CancellationToken,
) {
    let file = Follower {
        kind,
        origin: Origin::File(source.clone()),
        source,
        state,
        metrics,
    };
    let ended = tokio::select! {
        ended = file.follow() => ended,
        () = cancel.cancelled() => return,
    };
    if let Err(error) = ended {
        let path = file.source.path.display();
        warn!(%path, %error, "changes of this file will not be noticed");
    }
}

struct Follower {
    kind: Kind,
    source: FileSource,
    origin: Origin,
    state: Arc<State>,
    metrics: Metrics,
}

impl Follower {
    async fn follow(&self) -> io::Result<()> {
        // Before it is read, so that no change falls between.
        let changes = Changes::of(&self.source.watched);
        let mut elsewhere = self.state.changes();
        let mut wanted = self.state.wanted(self.kind, &self.origin);
        self.take().await;
        let changes = changes?;
        loop {
            tokio::select! {
                changed = changes.next(|name| self.source.is_meant(name)) => changed?,
                Ok(()) = elsewhere.changed() => {
                    let before = std::mem::replace(
                        &mut wanted,
                        self.state.wanted(self.kind, &self.origin),
                    );
                    if wanted.is_subset(&before) {
                        continue;
                    }
                }
            }
            self.take().await;
        }
    }

    async fn take(&self) {
        let kind = self.kind.word();
        let path = self.source.path.display();
        let reading = self.source.clone();
        let read = tokio::task::spawn_blocking(move || reading.read()).await;
        let mut response = match read {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.metrics.response(kind, 1);
                let error = chain(&error);
                warn!(kind, error, "what was read last stays in force");
                return;
            }
            // The process ends.
            Err(_) => return,
        };
        if response.type_url.is_empty() {
            self.kind.type_url().clone_into(&mut response.type_url);
        }
        let Update {
            resources, removal, ..
        } = StateOfTheWorld::read(response);
        let count = resources.len();
        let refusals = self.state.take(self.kind, resources, removal, &self.origin);
        self.metrics.response(kind, refusals.len());
        match refusals.is_empty() {
            true => info!(%path, kind, resources = count, "resources read"),
            false => {
                let refusal = refusals.join("; ");
                warn!(%path, refusal, "resources refused; the others are in force");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, content: &[u8]) -> (tempfile::TempDir, FileSource) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        (dir, FileSource::new(path))
    }

    #[test]
    fn a_file_is_read_as_yaml_and_in_binary_form() {
        let response = DiscoveryResponse {
            version_info: "7".into(),
            ..DiscoveryResponse::default()
        };

        let (_yaml_dir, yaml) = written("cds.yaml", b"version_info: '7'\nresources: []\n");
        let (_binary_dir, binary) = written("cds.pb", &response.encode_to_vec());

        assert_eq!(yaml.read().expect("valid"), response);
        assert_eq!(binary.read().expect("valid"), response);
    }

    #[test]
    fn what_is_no_discovery_response_is_told_by_file_and_field() {
        let (_dir, source) = written("lds.yaml", b"resourses: []\n");

        let error = source.read().expect_err("refused").to_string();

        assert!(error.contains("lds.yaml: no discovery response"), "{error}");
        assert!(error.contains("resourses"), "{error}");
    }

    #[tokio::test]
    async fn only_moves_to_the_file_count_unless_a_directory_is_named() {
        let (dir, file) = written("lds.yaml", b"{}");
        let directory =
            FileSource::within(dir.path().join("lds.yaml"), Watched::directory(dir.path()));

        assert!(file.is_meant(Some(c"lds.yaml")));
        assert!(!file.is_meant(Some(c"..data")));
        assert!(directory.is_meant(Some(c"..data")));

        let changes = Changes::of(&file.watched).expect("watched");
        let staged = dir.path().join("staged");
        std::fs::write(&staged, b"{}").expect("written");
        std::fs::rename(staged, dir.path().join("lds.yaml")).expect("moved");
        changes
            .next(|name| file.is_meant(name))
            .await
            .expect("an event");
    }
}
