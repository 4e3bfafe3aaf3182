//! The root filesystem: mounted, entered, filled, and the host's left behind.
//!
//! Whatever comes from outside is opened before the change of root, as a detached mount, and put in its place
//! after it: so every target is looked up inside the container, and no symbolic link of an image leads out.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MoveMountFlags, move_mount};

use super::mounts::{self, Detached};
use super::{InitError, devices};
use crate::container::bundle::{Bundle, Root};

/// What of the host a sidecar sees, as far as it exists.
const HOST_PROGRAMS: [&str; 8] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/ssl",
    "/etc/ld.so.cache",
    "/etc/alternatives",
];

/// Makes the bundle's root filesystem the root of this process.
pub(super) fn enter(bundle: &Bundle) -> Result<(), InitError> {
    let at = |doing: &str| InitError::system(doing.to_owned());
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|errno| at("making mounts private")(errno.into()))?;
    fs::create_dir_all(&bundle.root_directory).map_err(at("making the root directory"))?;

    let mut detached = devices::file_systems()?;
    match &bundle.root {
        Root::Overlay {
            layers,
            upper,
            work,
        } => {
            mount_overlay(layers, upper, work, &bundle.root_directory)
                .map_err(at("mounting the root filesystem"))?;
        }
        Root::HostPrograms { program } => {
            mount_empty(&bundle.root_directory).map_err(at("mounting the root filesystem"))?;
            detached.extend(host_programs(program, &bundle.root_directory)?);
        }
    }
    for mount in &bundle.mounts {
        detached.push(Detached::open(mount)?);
    }

    pivot(&bundle.root_directory).map_err(at("changing the root"))?;
    for mount in detached {
        mount.attach()?;
    }
    devices::finish()?;
    mounts::restrict()?;
    if bundle.read_only_root || matches!(bundle.root, Root::HostPrograms { .. }) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
            .map_err(|errno| at("making the root filesystem read-only")(errno.into()))?;
    }
    Ok(())
}

/// Layers are named by descriptor: mount(2) takes a page of options, and paths may contain `:` and `,`.
fn mount_overlay(layers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    if layers.is_empty() {
        let flags = MsFlags::MS_BIND;
        return Ok(mount(
            Some(upper),
            target,
            None::<&str>,
            flags,
            None::<&str>,
        )?);
    }
    let open = |path: &Path| {
        rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })
    };
    // The kernel wants the uppermost layer first.
    let lower = layers
        .iter()
        .rev()
        .map(|layer| open(layer))
        .collect::<io::Result<Vec<_>>>()?;
    let (upper, work) = (open(upper)?, open(work)?);
    let name = |fd: &std::os::fd::OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        lower.iter().map(name).collect::<Vec<_>>().join(":"),
        name(&upper),
        name(&work),
    );
    Ok(mount(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?)
}

fn mount_empty(target: &Path) -> io::Result<()> {
    let options = [("size", "1m"), ("mode", "0755")];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = mounts::file_system("tmpfs", &options, attributes)?;
    move_mount(
        &root,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

/// Directories become read-only binds; what is a symbolic link on the host is one here.
fn host_programs(program: &Path, root: &Path) -> Result<Vec<Detached>, InitError> {
    let mut detached = vec![Detached::bind_read_only(program, Path::new("/weft"))?];
    for path in HOST_PROGRAMS.map(Path::new) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            continue;
        };
        if metadata.is_symlink() {
            let inside = root.join(path.strip_prefix("/").unwrap_or(path));
            fs::read_link(path)
                .and_then(|target| std::os::unix::fs::symlink(target, inside))
                .map_err(InitError::system(format!(
                    "copying the link {}",
                    path.display()
                )))?;
        } else {
            detached.push(Detached::bind_read_only(path, path)?);
        }
    }
    for directory in ["tmp", "run", "var", "etc"] {
        fs::create_dir_all(root.join(directory))
            .map_err(InitError::system(format!("making /{directory}")))?;
    }
    Ok(detached)
}

/// The old root is stacked on the new one, and goes with everything below it.
fn pivot(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}
