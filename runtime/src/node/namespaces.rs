//! From the host into the mesh: directories, program, id maps, namespaces.
//!
//! Real root passes through a mount namespace of its own before it gives up its user namespace: there it can
//! still bind the program where the mesh's root will find it, even from a directory that only root may enter.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::NodeError;
use super::helper::{Helper, Task};
use super::ids::IdPlan;
use super::orphans::Orphans;
use crate::bootstrap::NodeOptions;
use crate::cgroup::Delegation;
use crate::sys;

/// What is held outside while the mesh lives.
pub(super) struct Entered {
    pub(super) helper: Helper,
    pub(super) delegation: Delegation,
}

/// Makes the directories and gives them to the mesh's root.
pub(super) fn prepare_directories(options: &NodeOptions, plan: &IdPlan) -> Result<(), NodeError> {
    for directory in [&options.state_dir, &options.runtime_dir] {
        let doing = || format!("preparing {}", directory.display());
        fs::create_dir_all(directory).map_err(NodeError::io(doing()))?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .map_err(NodeError::io(doing()))?;
        if let Some((uid, gid)) = plan.foreign_root() {
            chown(directory, Some(uid), Some(gid)).map_err(NodeError::io(doing()))?;
            ensure_reachable(directory, uid)?;
        }
    }
    Ok(())
}

/// Claims the state directory for as long as the result lives.
pub(super) fn lock(options: &NodeOptions) -> Result<Flock<File>, NodeError> {
    let path = options.state_dir.join("lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(NodeError::io(format!("opening {}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| NodeError::AlreadyRunning {
        state_dir: options.state_dir.clone(),
    })
}

/// Takes this process into new user, mount, network, IPC and UTS namespaces, as their root.
pub(super) fn enter(options: &NodeOptions, plan: &IdPlan) -> Result<Entered, NodeError> {
    let delegation = Delegation::prepare(&options.runtime_dir, plan.foreign_root());
    let mut helper = Helper::spawn(&Task {
        plan: Some(plan.clone()),
        delegation: delegation.clone(),
        runtime_dir: options.runtime_dir.clone(),
        program: options.program(),
    })?;
    if plan.foreign_root().is_some() {
        detach_mounts()?;
        bind_program(&options.program())?;
    }
    make(CloneFlags::CLONE_NEWUSER, "a user namespace")?;
    helper.begin()?;
    become_root()?;
    make(
        CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS,
        "a network namespace",
    )?;
    detach_mounts()?;
    if plan.foreign_root().is_none() {
        bind_program(&options.program())?;
    }
    Ok(Entered { helper, delegation })
}

/// Takes this process into the namespaces of a mesh that has lost its holder, as their root.
pub(super) fn enter_again(options: &NodeOptions, orphans: &Orphans) -> Result<Entered, NodeError> {
    let delegation = orphans.boot.delegation.clone();
    let mut helper = Helper::spawn(&Task {
        plan: None,
        delegation: delegation.clone(),
        runtime_dir: options.runtime_dir.clone(),
        program: options.program(),
    })?;
    orphans.join()?;
    helper.begin()?;
    become_root()?;
    Ok(Entered { helper, delegation })
}

/// Takes this process into namespaces of its own that nobody else will use, as their root.
pub(crate) fn enter_scratch(plan: &IdPlan) -> Result<(), NodeError> {
    let mut helper = Helper::spawn(&Task {
        plan: Some(plan.clone()),
        delegation: Delegation::None,
        runtime_dir: PathBuf::new(),
        program: PathBuf::new(),
    })?;
    make(CloneFlags::CLONE_NEWUSER, "a user namespace")?;
    helper.begin()?;
    become_root()?;
    make(CloneFlags::CLONE_NEWNET, "a network namespace")?;
    detach_mounts()
}

fn make(flags: CloneFlags, what: &'static str) -> Result<(), NodeError> {
    unshare(flags).map_err(|errno| NodeError::Namespace {
        what,
        source: errno.into(),
    })
}

/// A mount namespace in which nothing that is mounted reaches another.
fn detach_mounts() -> Result<(), NodeError> {
    make(CloneFlags::CLONE_NEWNS, "a mount namespace")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(|errno| {
        NodeError::Namespace {
            what: "mounts private",
            source: errno.into(),
        }
    })
}

fn become_root() -> Result<(), NodeError> {
    let root = || -> nix::Result<()> {
        // The group list goes first: after setresuid we could still, but the host's groups must never be seen.
        setgroups(&[])?;
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        // Changing ids makes a process undumpable, and /proc/self would belong to the host's root.
        nix::sys::prctl::set_dumpable(true)
    };
    root().map_err(|errno| NodeError::Namespace {
        what: "this process root of the user namespace",
        source: errno.into(),
    })
}

/// Puts this very program at a path of the runtime directory, read-only: containers are given it, and none may
/// write to the host's file through `/proc/<pid>/exe` (CVE-2019-5736).
fn bind_program(target: &Path) -> Result<(), NodeError> {
    let doing = format!("placing the program at {}", target.display());
    let bind = || -> io::Result<()> {
        if !target.exists() {
            fs::write(target, b"")?;
        }
        let source = program_path()?.map_or_else(|| copy_program(target), Ok)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, &source, flags)?;
        let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        sys::add_mount_attributes(&tree, attributes)?;
        move_mount(
            &tree,
            "",
            CWD,
            target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        Ok(())
    };
    bind().map_err(NodeError::io(doing))
}

/// Where this program lies, if it still does and anybody may execute it.
fn program_path() -> io::Result<Option<PathBuf>> {
    let running = fs::metadata("/proc/self/exe")?;
    let path = fs::read_link("/proc/self/exe")?;
    let is_same = fs::metadata(&path)
        .is_ok_and(|found| (found.dev(), found.ino()) == (running.dev(), running.ino()));
    Ok((is_same && running.mode() & 0o005 == 0o005).then_some(path))
}

/// A copy of this program: it has been replaced on disk since it was started, or is for its owner only.
fn copy_program(target: &Path) -> io::Result<PathBuf> {
    let copy = target.with_extension("copy");
    crate::files::remove(&copy)?;
    fs::copy("/proc/self/exe", &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

/// The mesh's root is nobody on the host: every directory above its own must let it pass.
fn ensure_reachable(directory: &Path, uid: u32) -> Result<(), NodeError> {
    for above in directory.ancestors().skip(1) {
        let metadata = fs::metadata(above)
            .map_err(NodeError::io(format!("looking at {}", above.display())))?;
        if metadata.mode() & 0o001 == 0 && metadata.uid() != uid {
            return Err(NodeError::Io {
                doing: format!(
                    "{} must be reachable for uid {uid}, the mesh's root: run `chmod o+x {}`, or choose other \
                     directories with WEFT_HOME and WEFT_RUNTIME_DIR",
                    directory.display(),
                    above.display()
                ),
                source: io::ErrorKind::PermissionDenied.into(),
            });
        }
    }
    Ok(())
}
