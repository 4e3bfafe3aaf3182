//! Where a mesh keeps its things. Two values of `WEFT_HOME` and `WEFT_RUNTIME_DIR` are two meshes.

use std::env;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The folders and sockets of one mesh, as docs/architecture.md lists them.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// State that outlives a restart of the machine.
    pub(crate) home: PathBuf,
    /// Sockets and what only matters while the mesh runs.
    pub(crate) runtime_dir: PathBuf,
}

impl Paths {
    /// From the environment, with the defaults for root and for everyone else.
    pub(crate) fn of_environment() -> Result<Self, Failure> {
        let is_root = nix::unistd::geteuid().is_root();
        let home = match from_environment("WEFT_HOME") {
            Some(path) => path,
            None if is_root => PathBuf::from("/var/lib/weft"),
            None => data_home()?.join("weft"),
        };
        let runtime_dir = match from_environment("WEFT_RUNTIME_DIR") {
            Some(path) => path,
            None if is_root => PathBuf::from("/run/weft"),
            None => user_runtime_dir(),
        };
        Ok(Self {
            home: std::path::absolute(&home)?,
            runtime_dir: std::path::absolute(&runtime_dir)?,
        })
    }

    /// Makes the folders. Root's are passable, since the mesh namespace's root is another user; an ordinary
    /// user's are private.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        let mode = if nix::unistd::geteuid().is_root() {
            0o711
        } else {
            0o700
        };
        for folder in [&self.home, &self.runtime_dir] {
            create_private(folder, mode)?;
        }
        let longest = self.node_socket_dir().join("handoff.sock");
        if longest.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(Failure::new(format!(
                "{} is too long for a unix socket ({MAX_SOCKET_PATH} bytes): set WEFT_RUNTIME_DIR to a shorter path",
                longest.display()
            )));
        }
        Ok(())
    }

    /// The API for the owner.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime_dir.join("weft.sock")
    }

    /// What sidecars see at `/run/weft`.
    pub(crate) fn pods(&self) -> PathBuf {
        self.runtime_dir.join("pods")
    }

    /// Where the node's sockets are.
    pub(crate) fn node_socket_dir(&self) -> PathBuf {
        self.runtime_dir.join("node")
    }

    /// What the node keeps.
    pub(crate) fn node_state(&self) -> PathBuf {
        self.home.join("node")
    }

    /// The daemon's process id.
    pub(crate) fn daemon_pid(&self) -> PathBuf {
        self.runtime_dir.join("daemon.pid")
    }

    /// What the daemon has to say when nobody is listening.
    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.runtime_dir.join("daemon.log")
    }
}

/// `sun_path` less its final NUL, unix(7).
const MAX_SOCKET_PATH: usize = 107;

fn from_environment(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn data_home() -> Result<PathBuf, Failure> {
    if let Some(path) = from_environment("XDG_DATA_HOME") {
        return Ok(path);
    }
    match from_environment("HOME") {
        Some(home) => Ok(home.join(".local/share")),
        None => Err(Failure::new(
            "neither WEFT_HOME nor HOME is set: set one of them",
        )),
    }
}

/// `XDG_RUNTIME_DIR` is set by a login; after `su` it is not.
fn user_runtime_dir() -> PathBuf {
    let uid = nix::unistd::geteuid();
    let of_login = PathBuf::from(format!("/run/user/{uid}"));
    let folder =
        from_environment("XDG_RUNTIME_DIR").or_else(|| is_ours(&of_login).then_some(of_login));
    match folder {
        Some(folder) => folder.join("weft"),
        None => PathBuf::from(format!("/tmp/weft-{uid}")),
    }
}

fn is_ours(folder: &Path) -> bool {
    folder
        .metadata()
        .is_ok_and(|metadata| metadata.uid() == nix::unistd::geteuid().as_raw())
}

fn create_private(folder: &Path, mode: u32) -> Result<(), Failure> {
    let explain = |error: std::io::Error| {
        Failure::new(format!(
            "creating {}: {error}; set WEFT_HOME and WEFT_RUNTIME_DIR to folders you may write",
            folder.display()
        ))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(folder)
        .map_err(explain)?;
    if !is_ours(folder) {
        return Err(Failure::new(format!(
            "{} belongs to another user: set WEFT_HOME and WEFT_RUNTIME_DIR to folders of your own",
            folder.display()
        )));
    }
    std::fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(explain)
}
