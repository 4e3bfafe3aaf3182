//! A named volume that is used for the first time gets what the image has at that place.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

/// No image has directories as deep as this.
const MAX_DEPTH: usize = 64;

/// Copies a directory of the image into a volume that is mounted nowhere yet, if that is empty.
pub(super) fn fill_if_empty(volume: &OwnedFd, image: &Path) -> io::Result<()> {
    let volume = PathBuf::from(format!("/proc/self/fd/{}", volume.as_raw_fd()));
    if fs::read_dir(&volume)?.next().is_some() {
        return Ok(());
    }
    copy_directory(image, &volume, MAX_DEPTH)
}

fn copy_directory(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other(format!("{} is too deep", from.display())));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let target = to.join(entry.file_name());
        if metadata.is_dir() {
            fs::create_dir(&target)?;
            copy_directory(&entry.path(), &target, depth - 1)?;
        } else if metadata.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if metadata.is_file() {
            fs::copy(entry.path(), &target)?;
        } else {
            continue;
        }
        lchown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    // Of the directory itself: its owner first, since that resets special permission bits.
    let metadata = fs::metadata(from)?;
    std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, metadata.permissions())
}
