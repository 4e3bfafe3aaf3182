//! Programs for sidecars: a newer weft than the one that the node was started with.
//!
//! Each is kept by its digest. The one in use is what sidecars to come are given; those that run go on with theirs
//! until they are replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use crate::files;

/// The folder below the state directory.
pub(crate) const DIRECTORY: &str = "programs";
/// The digest of the one in use.
const IN_USE: &str = "in-use";
/// No program is larger; one with all its debugging information is half as large.
const MAX_BYTES: u64 = 1 << 30;
/// What a program for Linux begins with (elf(5)).
const ELF: &[u8] = b"\x7fELF";
const PREFIX: &str = "sha256:";

/// The programs of one node.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    directory: PathBuf,
}

impl Programs {
    pub(super) fn below(state_dir: &Path) -> Programs {
        Programs {
            directory: state_dir.join(DIRECTORY),
        }
    }

    /// Takes one in, and returns its digest. Blocks.
    pub(super) fn import(&self, input: impl Read) -> Result<String, Failure> {
        let writing = || Failure::system("keeping the program");
        fs::create_dir_all(&self.directory).map_err(writing())?;
        let incoming = tempfile_in(&self.directory).map_err(writing())?;
        let copied = copy(input, &incoming.file);
        let placed = copied.and_then(|digest| {
            incoming.file.sync_all().map_err(writing())?;
            fs::rename(&incoming.path, self.directory.join(&digest)).map_err(writing())?;
            Ok(format!("{PREFIX}{digest}"))
        });
        if placed.is_err() {
            let _ = fs::remove_file(&incoming.path);
        }
        placed
    }

    /// Where one is.
    pub(super) fn find(&self, digest: &str) -> Result<PathBuf, Failure> {
        let missing = || Failure::NotFound {
            kind: "program",
            id: digest.to_owned(),
        };
        let hex = digest.strip_prefix(PREFIX).ok_or_else(missing)?;
        let is_digest = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let path = self.directory.join(hex);
        match is_digest && path.is_file() {
            true => Ok(path),
            false => Err(missing()),
        }
    }

    /// Makes one the program of sidecars to come.
    pub(super) fn use_for_new(&self, digest: &str) -> Result<(), Failure> {
        self.find(digest)?;
        files::replace(&self.directory.join(IN_USE), digest.as_bytes())
            .map_err(Failure::system("noting the program in use"))
    }

    /// The program of sidecars to come; none: the node's own.
    pub(super) fn in_use(&self) -> Option<PathBuf> {
        let digest = fs::read_to_string(self.directory.join(IN_USE)).ok()?;
        self.find(&digest).ok()
    }
}

struct Incoming {
    file: File,
    path: PathBuf,
}

fn tempfile_in(directory: &Path) -> io::Result<Incoming> {
    // One name is enough: whoever comes second takes the place of the first, whose file goes on without a name.
    let path = directory.join("incoming");
    files::remove(&path)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        // Sidecars run it as a user of their own.
        .mode(0o755)
        .open(&path)?;
    Ok(Incoming { file, path })
}

/// Copies a program and returns its digest in hexadecimal.
fn copy(input: impl Read, mut output: &File) -> Result<String, Failure> {
    let mut input = input.take(MAX_BYTES + 1);
    let (mut digest, mut length) = (Sha256::new(), 0_u64);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = input
            .read(&mut buffer)
            .map_err(Failure::system("receiving the program"))?;
        let chunk = &buffer[..read];
        if length == 0 && !chunk.starts_with(ELF) {
            return Err(Failure::invalid("chunk", "this is no program for Linux"));
        }
        if read == 0 {
            return Ok(hex(&digest.finalize()));
        }
        length += read as u64;
        if length > MAX_BYTES {
            return Err(Failure::invalid("chunk", "a program of more than 1 GiB"));
        }
        digest.update(chunk);
        output
            .write_all(chunk)
            .map_err(Failure::system("keeping the program"))?;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_is_found_by_its_digest_and_may_be_run_by_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let programs = Programs::below(directory.path());

        let digest = programs.import(&b"\x7fELF and more"[..]).expect("kept");
        let again = programs.import(&b"\x7fELF and more"[..]).expect("kept");

        assert_eq!(digest, again);
        let path = programs.find(&digest).expect("found");
        assert_eq!(fs::read(&path).expect("read"), b"\x7fELF and more");
        let mode = fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(programs.in_use().is_none());
        programs.use_for_new(&digest).expect("noted");
        assert_eq!(programs.in_use(), Some(path));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let programs = Programs::below(directory.path());

        assert!(programs.import(&b"#!/bin/sh"[..]).is_err());
        assert!(programs.import(&b""[..]).is_err());
        for digest in ["sha256:../../etc/passwd", "sha256:", "incoming", ""] {
            assert!(programs.find(digest).is_err(), "{digest}");
        }
        assert!(programs.use_for_new("sha256:00").is_err());
    }
}
