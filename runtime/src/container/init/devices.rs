//! /proc, /sys and /dev of a container.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::MountAttrFlags;

use super::InitError;
use super::mounts::{Detached, file_system, open_bind};
use crate::sys;

/// Bound from the host, since a user namespace cannot make device nodes.
const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// In the order in which they are attached. The kernel lets us make /proc and /sys only while the host's are in
/// sight, that is before the change of root.
pub(super) fn file_systems() -> Result<Vec<Detached>, InitError> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let inert = quiet | MountAttrFlags::MOUNT_ATTR_NODEV;
    let make = |kind: &str, target: &str, options: &[(&str, &str)], attributes| {
        file_system(kind, options, attributes)
            .map(|tree| Detached::directory(tree, target))
            .map_err(InitError::system(format!("making {target}")))
    };
    let mut mounts = vec![
        make("proc", "/proc", &[], inert)?,
        Detached::directory(sys_tree(inert)?, "/sys"),
        make("tmpfs", "/dev", &[("size", "64k"), ("mode", "0755")], quiet)?,
    ];
    for device in DEVICES {
        mounts.push(Detached::device(device)?);
    }
    mounts.push(Detached::directory(terminals(quiet)?, "/dev/pts"));
    mounts.push(make(
        "tmpfs",
        "/dev/shm",
        &[("size", "64m"), ("mode", "1777")],
        inert,
    )?);
    mounts.push(make("mqueue", "/dev/mqueue", &[], inert)?);
    Ok(mounts)
}

/// What is in /dev besides mounts.
pub(super) fn finish() -> Result<(), InitError> {
    for (target, link) in LINKS {
        symlink(target, link).map_err(InitError::system(format!("making {link}")))?;
    }
    Ok(())
}

/// A sysfs of the sandbox's network; where the kernel refuses one (in another container) the host's, read-only.
fn sys_tree(inert: MountAttrFlags) -> Result<std::os::fd::OwnedFd, InitError> {
    let own = file_system("sysfs", &[], inert | MountAttrFlags::MOUNT_ATTR_RDONLY);
    own.or_else(|_| -> io::Result<_> {
        let tree = open_bind(Path::new("/sys"))?;
        sys::add_mount_attributes(&tree, libc::MOUNT_ATTR_RDONLY)?;
        Ok(tree)
    })
    .map_err(InitError::system("making /sys"))
}

/// Group 5 owns terminals wherever there is such a group; a namespace of few ids has none.
fn terminals(quiet: MountAttrFlags) -> Result<std::os::fd::OwnedFd, InitError> {
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    file_system("devpts", &options, quiet)
        .or_else(|_| file_system("devpts", &options[..2], quiet))
        .map_err(InitError::system("making /dev/pts"))
}
