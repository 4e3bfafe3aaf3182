//! Folders of the host that live as long as a pod: its `emptyDir` volumes.
//!
//! They survive restarts of containers, as Kubernetes promises. The folder above belongs to the mesh's root and is
//! closed to everybody else of this machine, so what is inside may be open to any user of a container.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

const REMOVAL_DEADLINE: Duration = Duration::from_secs(60);

/// Where the folders are.
#[derive(Debug)]
pub(super) struct Scratch {
    root: PathBuf,
    /// A process in the mesh's user namespace.
    holder_pid: i32,
}

impl Scratch {
    pub(super) fn prepare(root: PathBuf, holder_pid: i32) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        // An ordinary user is the mesh's root himself; real root hands the folder over.
        if rustix::process::geteuid().is_root() {
            let user = root_of_map(&format!("/proc/{holder_pid}/uid_map"));
            let group = root_of_map(&format!("/proc/{holder_pid}/gid_map"));
            chown(&root, user, group)?;
        }
        Ok(Self { root, holder_pid })
    }

    /// The folder of a pod's volume, made where there is none.
    pub(super) fn folder(&self, sandbox: &str, volume: &str) -> io::Result<PathBuf> {
        // Names of objects were validated; a path must not depend on that.
        if [sandbox, volume]
            .iter()
            .any(|name| name.contains('/') || name.starts_with(".."))
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let folder = self.root.join(sandbox).join(volume);
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            let above = self.root.join(sandbox);
            fs::set_permissions(&above, fs::Permissions::from_mode(0o755))?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        }
        Ok(folder)
    }

    /// Removes the folders of a pod; succeeds where there are none.
    pub(super) async fn remove(&self, sandbox: &str) -> io::Result<()> {
        let folder = self.root.join(sandbox);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.remove_as_mesh_root(&folder).await
            }
            result => result,
        }
    }

    /// The sandboxes that have folders.
    pub(super) fn sandboxes(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// What a container's users wrote belongs to ids that only the mesh's root may touch.
    async fn remove_as_mesh_root(&self, folder: &Path) -> io::Result<()> {
        let mut command = Command::new("nsenter");
        command
            .args(["--user", "--setuid", "0", "--setgid", "0", "--target"])
            .arg(self.holder_pid.to_string())
            .args(["rm", "-rf", "--one-file-system", "--"])
            .arg(folder)
            .kill_on_drop(true);
        let status = tokio::time::timeout(REMOVAL_DEADLINE, command.status())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "rm in the mesh's namespace: {status}"
        )))
    }
}

/// The host's id of a namespace's root, by user_namespaces(7); where it cannot be read, the file's owner stays.
fn root_of_map(path: &str) -> Option<u32> {
    let map = fs::read_to_string(path).ok()?;
    map.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (inside, outside) = (fields.next()?, fields.next()?);
        (inside == "0").then(|| outside.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_pid() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[tokio::test]
    async fn a_volume_is_open_below_a_closed_folder_and_goes_with_its_pod() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::prepare(folder.path().join("scratch"), own_pid()).unwrap();

        let volume = scratch.folder("shop.a", "cache").unwrap();
        fs::write(volume.join("file"), b"x").unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&volume), 0o777);
        assert_eq!(mode(&folder.path().join("scratch")), 0o700);
        assert_eq!(scratch.folder("shop.a", "cache").unwrap(), volume);
        assert!(
            volume.join("file").exists(),
            "asking again must not empty it"
        );
        scratch.remove("shop.a").await.unwrap();
        assert!(scratch.sandboxes().is_empty());
        scratch.remove("shop.a").await.unwrap();
    }
}
