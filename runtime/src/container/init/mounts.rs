//! Mounts that are made outside the container and put in their place inside it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{InitError, volumes};
use crate::container::bundle::{Mount, Source};
use crate::sys;

/// Hidden from containers: they tell of the host or let it be changed (the list of other runtimes).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Readable only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A mount without a place.
#[derive(Debug)]
pub(super) struct Detached {
    tree: OwnedFd,
    target: PathBuf,
    is_directory: bool,
    is_volume: bool,
}

impl Detached {
    pub(super) fn open(mount: &Mount) -> Result<Detached, InitError> {
        let doing = || InitError::system(format!("mounting {}", mount.target.display()));
        let (tree, is_directory) = match &mount.source {
            Source::Bind(path) | Source::Volume(path) => (
                open_bind(path)
                    .map_err(explain_unreachable(path))
                    .map_err(doing())?,
                fs::metadata(path).map_err(doing())?.is_dir(),
            ),
            Source::Tmpfs { bytes, mode, uid } => {
                let options = [
                    ("size", bytes.to_string()),
                    ("mode", format!("{mode:o}")),
                    ("uid", uid.to_string()),
                    ("gid", uid.to_string()),
                ];
                let options = options
                    .each_ref()
                    .map(|(name, value)| (*name, value.as_str()));
                let attributes =
                    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                (
                    file_system("tmpfs", &options, attributes).map_err(doing())?,
                    true,
                )
            }
        };
        let mut attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        if mount.read_only {
            attributes |= libc::MOUNT_ATTR_RDONLY;
        }
        sys::add_mount_attributes(&tree, attributes).map_err(doing())?;
        Ok(Detached {
            tree,
            target: mount.target.clone(),
            is_directory,
            is_volume: matches!(mount.source, Source::Volume(_)),
        })
    }

    pub(super) fn bind_read_only(source: &Path, target: &Path) -> Result<Detached, InitError> {
        Detached::open(&Mount {
            target: target.to_owned(),
            source: Source::Bind(source.to_owned()),
            read_only: true,
        })
    }

    /// A bind of one device node, which stays usable as one.
    pub(super) fn device(path: &str) -> Result<Detached, InitError> {
        let tree =
            open_bind(Path::new(path)).map_err(InitError::system(format!("opening {path}")))?;
        Ok(Detached {
            tree,
            target: path.into(),
            is_directory: false,
            is_volume: false,
        })
    }

    pub(super) fn directory(tree: OwnedFd, target: &str) -> Detached {
        Detached {
            tree,
            target: target.into(),
            is_directory: true,
            is_volume: false,
        }
    }

    /// Puts it in its place, which is made where there is none. The root is the container's by now.
    pub(super) fn attach(self) -> Result<(), InitError> {
        let attach = || -> io::Result<()> {
            make_target(&self.target, self.is_directory)?;
            if self.is_volume && self.is_directory {
                volumes::fill_if_empty(&self.tree, &self.target)?;
            }
            let flags =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
            move_mount(&self.tree, "", CWD, &self.target, flags)?;
            Ok(())
        };
        attach().map_err(InitError::system(format!(
            "mounting {}",
            self.target.display()
        )))
    }
}

/// A new file system, mounted nowhere.
pub(super) fn file_system(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        fsconfig_set_string(&context, *name, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Hides and locks what containers must not read or write.
pub(super) fn restrict() -> Result<(), InitError> {
    for path in MASKED {
        mask(Path::new(path)).map_err(InitError::system(format!("hiding {path}")))?;
    }
    for path in READ_ONLY {
        lock(Path::new(path)).map_err(InitError::system(format!("making {path} read-only")))?;
    }
    Ok(())
}

fn mask(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let cover = if metadata.is_dir() {
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        file_system("tmpfs", &[("size", "4k"), ("mode", "0555")], attributes)?
    } else {
        open_bind(Path::new("/dev/null"))?
    };
    move_mount(
        &cover,
        "",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

fn lock(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let tree = open_bind(path)?;
    let attributes = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC;
    sys::add_mount_attributes(&tree, attributes)?;
    move_mount(
        &tree,
        "",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

/// A copy of what is mounted at a path and below.
pub(super) fn open_bind(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, path, flags)?)
}

fn explain_unreachable(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; the mesh's root is not the host's: every directory above must be open to others (chmod o+x)"
            }
            _ => "",
        };
        io::Error::new(error.kind(), format!("{path}: {error}{advice}"))
    }
}

fn make_target(target: &Path, is_directory: bool) -> io::Result<()> {
    if fs::metadata(target).is_ok() {
        return Ok(());
    }
    // A dangling link, such as an image's /etc/resolv.conf that points below /run.
    if fs::symlink_metadata(target).is_ok_and(|metadata| metadata.is_symlink()) {
        fs::remove_file(target)?;
    }
    if is_directory {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(target, b"")
}
