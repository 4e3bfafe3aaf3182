//! What can go wrong with images, in words that say what to do.

use std::io;
use std::path::Path;

/// A refusal or failure of the image store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text is no image name, id or digest.
    #[error("{reference:?} is not an image reference: {reason}")]
    InvalidReference {
        /// What was given.
        reference: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// No image of the store has this name or id.
    #[error(
        "no image {reference} in the store; `weft image ls` lists what there is, `weft image import` adds an archive"
    )]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// Several ids begin like this.
    #[error("{prefix} begins the id of several images ({}); write more of it", ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The ids that match.
        ids: Vec<String>,
    },
    /// The operating system refused.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The archive is no image that weft can read.
    #[error("the archive cannot be imported: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },
    /// Content is not what its digest promises.
    #[error(
        "{name} has the digest {actual}, not {expected}: the archive is damaged or was tampered with"
    )]
    DigestMismatch {
        /// Which content.
        name: String,
        /// What was promised.
        expected: String,
        /// What was found.
        actual: String,
    },
    /// An entry of a layer or build context that cannot be unpacked.
    #[error("{path}: {reason}")]
    Entry {
        /// The entry's path inside the archive.
        path: String,
        /// Why it is refused.
        reason: String,
    },
    /// A file belongs to an id that the user namespace does not map.
    #[error(
        "{path} belongs to uid {uid}, gid {gid}, which are not ids of the mesh's user namespace; \
         `weft check` shows the range, /etc/subuid and /etc/subgid widen it"
    )]
    UnmappedOwner {
        /// The entry's path inside the archive.
        path: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A bound that protects the machine was reached.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The bound.
        limit: String,
    },
    /// A Dockerfile asks for something that it may not, or that is not there.
    #[error("{file}:{line}: {reason}\n  {line:>4} | {text}")]
    Dockerfile {
        /// Path of the Dockerfile inside the context.
        file: String,
        /// One-based line of the instruction.
        line: usize,
        /// What is wrong, and what to write instead.
        reason: String,
        /// The line itself.
        text: String,
    },
    /// A build step could not be carried out.
    #[error("{file}:{line}: {step}")]
    Step {
        /// Path of the Dockerfile inside the context.
        file: String,
        /// One-based line of the instruction.
        line: usize,
        /// The instruction.
        step: String,
        /// Why it failed.
        source: Box<ImageError>,
    },
    /// The command of a `RUN` could not be started, or failed.
    #[error("running the command: {reason}")]
    Run {
        /// The runner's reason, or the exit status.
        reason: String,
    },
}

impl ImageError {
    /// For `map_err`: names what was being done when the system refused.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ImageError {
        let doing = doing.into();
        move |source| ImageError::Io { doing, source }
    }

    pub(super) fn at(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        Self::io(format!("{doing} {}", path.display()))
    }

    pub(super) fn sys(doing: &str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> ImageError {
        let raise = Self::at(doing, path);
        move |errno| raise(errno.into())
    }

    pub(super) fn archive(reason: impl Into<String>) -> ImageError {
        ImageError::Archive {
            reason: reason.into(),
        }
    }

    pub(super) fn entry(path: &Path, reason: impl Into<String>) -> ImageError {
        ImageError::Entry {
            path: path.display().to_string(),
            reason: reason.into(),
        }
    }
}
