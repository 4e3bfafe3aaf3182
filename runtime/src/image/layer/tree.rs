//! Writes files into a folder by paths that cannot be trusted.
//!
//! Every path is opened with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)` (openat2(2)), so
//! that symbolic links an archive brought along resolve inside of the folder. Whatever stands at
//! a path is replaced, never followed.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::path::split;
use super::whiteout;
use crate::image::error::ImageError;

/// openat2 says EAGAIN when something was renamed meanwhile; nothing should be, here.
const ATTEMPTS: usize = 16;

/// How deep folders may be nested, counted from the root of the file system. By way of links an
/// archive could nest deeper than any path reaches, and removing a folder takes a descriptor for
/// each level, of which a process has 1024 by default.
const DEEPEST: usize = 300;

/// A folder being filled. Attributes of folders are set by `finish`.
pub(crate) struct Tree {
    root: OwnedFd,
    folders: BTreeMap<PathBuf, Attributes>,
    caller: (u32, u32),
}

impl Tree {
    /// Opens an existing folder.
    pub(crate) fn open(path: &Path) -> Result<Tree, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(ImageError::sys("opening", path))?;
        let caller = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Ok(Tree {
            root,
            folders: BTreeMap::from([(PathBuf::new(), Attributes::folder())]),
            caller,
        })
    }

    /// Makes a folder, or changes the attributes of the one that is there.
    pub(crate) fn folder(&mut self, path: &Path, attributes: Attributes) -> Result<(), ImageError> {
        if let Some((parent, name)) = split(path) {
            let parent = self.parent(parent)?;
            match kind(&parent, name) {
                Some(FileType::Directory) => {}
                Some(kind) => {
                    remove(&parent, name).map_err(fault(path))?;
                    make_folder(&parent, name).map_err(fault(path))?;
                    // It hid a lower folder, and must go on hiding it.
                    if kind == FileType::CharacterDevice {
                        self.opaque(path)?;
                    }
                }
                None => make_folder(&parent, name).map_err(fault(path))?,
            }
        }
        self.folders.insert(path.to_owned(), attributes);
        Ok(())
    }

    /// Writes a file; returns its size.
    pub(crate) fn file(
        &mut self,
        path: &Path,
        content: &mut dyn Read,
        attributes: &Attributes,
    ) -> Result<u64, ImageError> {
        let (parent, name) = self.vacant(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(fault(path))?);
        let bytes = io::copy(content, &mut file).map_err(ImageError::at("writing", path))?;
        file.flush().map_err(ImageError::at("writing", path))?;
        // Order: a change of owner clears set-id bits and capabilities.
        if let Some((uid, gid)) = self.change_of_owner(attributes) {
            rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(unowned(path, attributes))?;
        }
        set_xattrs(&file, attributes).map_err(fault(path))?;
        rustix::fs::fchmod(&file, mode(attributes)).map_err(fault(path))?;
        rustix::fs::futimens(&file, &times(attributes)).map_err(fault(path))?;
        Ok(bytes)
    }

    /// Makes a symbolic link, whatever its target.
    pub(crate) fn symlink(
        &mut self,
        path: &Path,
        target: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), ImageError> {
        let (parent, name) = self.vacant(path)?;
        rustix::fs::symlinkat(target, &parent, name).map_err(fault(path))?;
        self.own(&parent, name, path, attributes)?;
        let times = times(attributes);
        rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(fault(path))
    }

    /// Gives a file of this tree another name.
    pub(crate) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), ImageError> {
        let missing = || {
            ImageError::entry(
                path,
                format!(
                    "hard link to {}, which is not in the archive",
                    target.display()
                ),
            )
        };
        let (target_parent, target_name) = split(target).ok_or_else(missing)?;
        let target_parent = self.open_folder(target_parent).map_err(|_| missing())?;
        match kind(&target_parent, target_name) {
            None | Some(FileType::CharacterDevice) => return Err(missing()),
            Some(FileType::Directory) => {
                return Err(ImageError::entry(path, "hard link to a folder"));
            }
            Some(_) if path == target => return Ok(()),
            Some(_) => {}
        }
        let (parent, name) = self.vacant(path)?;
        rustix::fs::linkat(&target_parent, target_name, &parent, name, AtFlags::empty())
            .map_err(fault(path))
    }

    /// Makes a named pipe.
    pub(crate) fn fifo(&mut self, path: &Path, attributes: &Attributes) -> Result<(), ImageError> {
        let (parent, name) = self.vacant(path)?;
        rustix::fs::mknodat(&parent, name, FileType::Fifo, mode(attributes), 0)
            .map_err(fault(path))?;
        self.own(&parent, name, path, attributes)
    }

    /// Deletes what lower layers have at this path. What this layer has there stays: deletions
    /// are about lower layers only (OCI image specification, "Whiteouts").
    pub(crate) fn whiteout(&mut self, path: &Path) -> Result<(), ImageError> {
        let Some((parent, name)) = split(path) else {
            return Err(ImageError::entry(path, "deletes the root"));
        };
        let parent = self.parent(parent)?;
        match kind(&parent, name) {
            Some(FileType::Directory) => self.opaque(path),
            Some(_) => Ok(()),
            None => {
                let device = FileType::CharacterDevice;
                rustix::fs::mknodat(&parent, name, device, Mode::empty(), 0).map_err(fault(path))
            }
        }
    }

    /// Lets nothing of lower layers shine through in this folder.
    pub(crate) fn opaque(&mut self, path: &Path) -> Result<(), ImageError> {
        self.parent(path)?;
        let folder = self.reopen(path, OFlags::RDONLY | OFlags::DIRECTORY);
        let folder = folder.map_err(fault(path))?;
        let name = whiteout::OPAQUE_XATTR;
        rustix::fs::fsetxattr(&folder, name, b"y", XattrFlags::empty()).map_err(fault(path))
    }

    /// Sets the attributes of all folders, innermost first, and ends the writing.
    pub(crate) fn finish(mut self) -> Result<(), ImageError> {
        let folders = std::mem::take(&mut self.folders);
        for (path, attributes) in folders.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let folder = match self.reopen(path, flags) {
                Ok(folder) => folder,
                // A later entry put something else in its place.
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => continue,
                Err(errno) => return Err(fault(path)(errno)),
            };
            if let Some((uid, gid)) = self.change_of_owner(attributes) {
                rustix::fs::fchown(&folder, Some(uid), Some(gid))
                    .map_err(unowned(path, attributes))?;
            }
            set_xattrs(&folder, attributes).map_err(fault(path))?;
            rustix::fs::fchmod(&folder, mode(attributes)).map_err(fault(path))?;
            rustix::fs::futimens(&folder, &times(attributes)).map_err(fault(path))?;
        }
        Ok(())
    }

    /// Parent and name of a path with nothing at it any more.
    fn vacant<'p>(&mut self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), ImageError> {
        let Some((parent, name)) = split(path) else {
            return Err(ImageError::entry(path, "the root must be a folder"));
        };
        let parent = self.parent(parent)?;
        if kind(&parent, name).is_some() {
            remove(&parent, name).map_err(fault(path))?;
        }
        Ok((parent, name))
    }

    /// Opens a folder, making what is missing on the way to it.
    fn parent(&mut self, path: &Path) -> Result<OwnedFd, ImageError> {
        match self.open_folder(path) {
            Ok(folder) => return Ok(folder),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) => {
                return Err(ImageError::entry(
                    path,
                    "is not a folder but has files in it",
                ));
            }
            Err(errno) => return Err(fault(path)(errno)),
        }
        let Some((above, name)) = split(path) else {
            return Err(fault(path)(Errno::NOENT));
        };
        // The depth of this recursion is that of the path, which is bounded by its length.
        let above = self.parent(above)?;
        match make_folder(&above, name) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return Err(ImageError::entry(
                    path,
                    "is a link to nothing but has files in it",
                ));
            }
            Err(errno) => return Err(fault(path)(errno)),
        }
        self.folders
            .entry(path.to_owned())
            .or_insert_with(Attributes::folder);
        self.open_folder(path).map_err(fault(path))
    }

    fn open_folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.reopen(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn reopen(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open_in(&self.root, path, flags)
    }

    fn own(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        attributes: &Attributes,
    ) -> Result<(), ImageError> {
        let Some((uid, gid)) = self.change_of_owner(attributes) else {
            return Ok(());
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)
            .map_err(unowned(path, attributes))
    }

    /// None where the file already belongs to whom it should.
    fn change_of_owner(&self, attributes: &Attributes) -> Option<(Uid, Gid)> {
        let (uid, gid) = attributes.owner?;
        let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
        ((uid, gid) != self.caller).then_some(owner)
    }
}

/// Opens below `root`, wherever symbolic links on the way point.
pub(crate) fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    for _ in 0..ATTEMPTS {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

fn kind(parent: &OwnedFd, name: &OsStr) -> Option<FileType> {
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(found.st_mode))
}

fn make_folder(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let link = format!("/proc/self/fd/{}", parent.as_raw_fd());
    let slashes = |path: &CString| path.as_bytes().iter().filter(|byte| **byte == b'/').count();
    match rustix::fs::readlink(link, Vec::new()) {
        Ok(path) if slashes(&path) >= DEEPEST => return Err(Errno::NAMETOOLONG),
        Err(Errno::NAMETOOLONG) => return Err(Errno::NAMETOOLONG),
        _ => {}
    }
    rustix::fs::mkdirat(parent, name, Mode::RWXU)
}

/// Removes whatever is there. A folder is emptied by its own descriptor, so links are not followed.
fn remove(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        result => return result,
    }
    let mut pending = vec![PathBuf::from(name)];
    while let Some(path) = pending.last().cloned() {
        match rustix::fs::unlinkat(parent, &path, AtFlags::REMOVEDIR) {
            Ok(()) => {
                pending.pop();
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => empty(parent, &path, &mut pending)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Removes the files of a folder, and notes its folders.
fn empty(parent: &OwnedFd, path: &Path, pending: &mut Vec<PathBuf>) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, path, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                let name = std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes());
                pending.push(path.join::<&OsStr>(name));
            }
            result => result?,
        }
    }
    Ok(())
}

fn set_xattrs(file: impl std::os::fd::AsFd, attributes: &Attributes) -> Result<(), Errno> {
    for (name, value) in &attributes.xattrs {
        match rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
            // File systems without attributes, and capabilities that only a real root may give:
            // the file works without them for everybody who is root in its container.
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                tracing::debug!(attribute = name, "extended attribute not kept");
            }
            result => result?,
        }
    }
    Ok(())
}

fn mode(attributes: &Attributes) -> Mode {
    Mode::from_raw_mode(attributes.mode & 0o7777)
}

fn times(attributes: &Attributes) -> Timestamps {
    let modified = Timespec {
        tv_sec: attributes.modified,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

fn fault(path: &Path) -> impl FnOnce(Errno) -> ImageError {
    ImageError::sys("unpacking", path)
}

/// EINVAL: the id is not mapped (user_namespaces(7)); EPERM: we are nobody's root.
fn unowned(path: &Path, attributes: &Attributes) -> impl FnOnce(Errno) -> ImageError {
    move |errno| match (errno, attributes.owner) {
        (Errno::INVAL | Errno::PERM | Errno::OVERFLOW, Some((uid, gid))) => {
            ImageError::UnmappedOwner {
                path: path.display().to_string(),
                uid,
                gid,
            }
        }
        _ => fault(path)(errno),
    }
}
