//! Directories whose files are read again when one of them is moved there.
//!
//! As in Envoy only moves count, since a file that is written in place would be read when half of it is there: unless
//! it is said that those count, too, once they are closed.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use super::state::State;

/// Room for what has happened since it was asked last.
const EVENTS_BYTES: usize = 4096;

/// A directory, and what counts as a change in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched {
    directory: PathBuf,
    /// Whether a file that was written in place counts, too.
    or_written: bool,
}

impl Watched {
    /// Moves into a directory.
    pub fn directory(path: &Path) -> Self {
        Self {
            directory: path.to_owned(),
            or_written: false,
        }
    }

    /// The same, where a file that is written in place counts as one that is moved.
    pub fn or_written(self) -> Self {
        Self {
            or_written: true,
            ..self
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    fn events(&self) -> WatchFlags {
        match self.or_written {
            // Not before all of it is written.
            true => WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE,
            false => WatchFlags::MOVED_TO,
        }
    }
}

/// Changes in a directory. For tokio what inotify(7) tells of them is a pipe: bytes to wait for.
pub(super) struct Changes(Receiver);

impl Changes {
    pub(super) fn of(watched: &Watched) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&events, &watched.directory, watched.events())?;
        Receiver::from_owned_fd_unchecked(events).map(Self)
    }

    /// Waits for one of a name that is meant.
    pub(super) async fn next(&self, is_meant: impl Fn(Option<&CStr>) -> bool) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            if self.take(&is_meant)? {
                return Ok(());
            }
        }
    }

    /// Takes all that has happened; tells whether one of it is meant.
    fn take(&self, is_meant: &impl Fn(Option<&CStr>) -> bool) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = inotify::Reader::new(&self.0, &mut buffer);
        let mut has_meant = false;
        loop {
            match events.next() {
                Ok(event) => has_meant |= is_meant(event.file_name()),
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        // Only a read by itself tells tokio that there is no more. What it reads is not looked at: it counts.
        match self.0.try_read(&mut [0; EVENTS_BYTES]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(has_meant),
            Err(error) => Err(error),
            Ok(_) => Ok(true),
        }
    }
}

/// Reads again what depends on files of a directory, whenever one of them changes, until cancelled.
pub(super) async fn follow(watched: Watched, state: Arc<State>, cancel: CancellationToken) {
    let followed = async {
        let changes = Changes::of(&watched)?;
        // What changed before it was watched.
        loop {
            state.read_files_again(&watched);
            changes.next(|_| true).await?;
        }
    };
    let ended: io::Result<()> = tokio::select! {
        ended = followed => ended,
        () = cancel.cancelled() => return,
    };
    if let Err(error) = ended {
        let path = watched.directory.display();
        tracing::warn!(%path, %error, "changes in this directory will not be noticed");
    }
}
