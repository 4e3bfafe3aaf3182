//! Resources from a file: a discovery response that is read again whenever a file is moved to its place.
//!
//! As in Envoy only moves count, since a file that is written in place would be read when half of it is there. Where a
//! directory is named, any move within it counts: so symbolic links are followed that are changed as a whole.

use std::ffi::{CStr, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_proto::envoy::service::discovery::v3::DiscoveryResponse;
use weft_proto::json;

use super::dialogue::{Dialogue, Update};
use super::kind::Kind;
use super::metrics::Metrics;
use super::state::State;
use super::state_of_the_world::StateOfTheWorld;
use super::translate::chain;

/// The largest file.
const MAX_BYTES: u64 = 64 << 20;
/// Room for what has happened since it was asked last.
const EVENTS_BYTES: usize = 4096;

/// A file with resources of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    path: PathBuf,
    directory: PathBuf,
    /// Whether a move of any file in the directory means that this one has changed.
    by_directory: bool,
    /// Whether a file that was written in place counts, too.
    or_written: bool,
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
    /// A file, and the directory whose moves tell of its changes; none: moves to the file itself.
    pub fn new(path: PathBuf, directory: Option<PathBuf>) -> Self {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Self {
            by_directory: directory.is_some(),
            or_written: false,
            directory: directory.unwrap_or_else(|| parent.to_owned()),
            path,
        }
    }

    /// The same, where a file that is written in place counts as one that is moved.
    pub fn or_written(self) -> Self {
        Self {
            or_written: true,
            ..self
        }
    }

    fn events(&self) -> WatchFlags {
        match self.or_written {
            // Not before all of it is written.
            true => WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE,
            false => WatchFlags::MOVED_TO,
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
    json::from_json(value).map_err(|error| chain(&error))
}

/// Moves into a directory. For tokio what inotify(7) tells of them is a pipe: bytes to wait for.
struct Moves(Receiver);

impl Moves {
    fn to(source: &FileSource) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&events, &source.directory, source.events())?;
        Receiver::from_owned_fd_unchecked(events).map(Self)
    }

    /// Waits for one that is meant.
    async fn next(&self, source: &FileSource) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            if self.is_meant(source)? {
                return Ok(());
            }
        }
    }

    /// Takes all that has happened; tells whether one of it is meant.
    fn is_meant(&self, source: &FileSource) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        let mut is_meant = false;
        loop {
            match events.next() {
                Ok(event) => is_meant |= source.is_meant(event.file_name()),
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Only a read by itself tells tokio that there is no more. What it reads is not looked at: it counts.
        match self.0.try_read(&mut [0; EVENTS_BYTES]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(is_meant),
            Err(error) => Err(error),
            Ok(_) => Ok(true),
        }
    }
}

/// Takes what a file holds, now and whenever it changes, until cancelled.
pub async fn follow(
    kind: Kind,
    source: FileSource,
    state: Arc<State>,
    metrics: Metrics,
    cancel: CancellationToken,
) {
    // Before it is read, so that no change falls between.
    let moves = Moves::to(&source);
    take(kind, &source, &state, &metrics).await;
    let followed = async {
        let moves = moves?;
        loop {
            moves.next(&source).await?;
            take(kind, &source, &state, &metrics).await;
        }
    };
    let ended: io::Result<()> = tokio::select! {
        ended = followed => ended,
        () = cancel.cancelled() => return,
    };
    if let Err(error) = ended {
        let path = source.path.display();
        warn!(%path, %error, "changes of this file will not be noticed");
    }
}

async fn take(kind: Kind, source: &FileSource, state: &State, metrics: &Metrics) {
    let path = source.path.display();
    let reading = source.clone();
    let read = tokio::task::spawn_blocking(move || reading.read()).await;
    let mut response = match read {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            metrics.response(kind.word(), 1);
            let error = chain(&error);
            warn!(
                kind = kind.word(),
                error, "what was read last stays in force"
            );
            return;
        }
        // The process ends.
        Err(_) => return,
    };
    if response.type_url.is_empty() {
        kind.type_url().clone_into(&mut response.type_url);
    }
    let Update {
        resources, removal, ..
    } = StateOfTheWorld::read(response);
    let count = resources.len();
    let refusals = state.take(kind, resources, removal);
    metrics.response(kind.word(), refusals.len());
    match refusals.is_empty() {
        true => info!(%path, kind = kind.word(), resources = count, "resources read"),
        false => {
            let refusal = refusals.join("; ");
            warn!(%path, refusal, "resources refused; the others are in force");
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
        (dir, FileSource::new(path, None))
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
        let directory = FileSource::new(dir.path().join("lds.yaml"), Some(dir.path().to_owned()));

        assert!(file.is_meant(Some(c"lds.yaml")));
        assert!(!file.is_meant(Some(c"..data")));
        assert!(directory.is_meant(Some(c"..data")));

        let moves = Moves::to(&file).expect("watched");
        let staged = dir.path().join("staged");
        std::fs::write(&staged, b"{}").expect("written");
        std::fs::rename(staged, dir.path().join("lds.yaml")).expect("moved");
        moves.next(&file).await.expect("an event");
    }
}
