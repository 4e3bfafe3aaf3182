//! Limits of containers: the cgroups that the mesh was given, and one below them for each container that has limits.
//!
//! Real root prepares a cgroup for the mesh and gives it to the mesh's root before the namespaces are made; an
//! ordinary user has one only where a supervisor delegated it to him (version 2). Where there is none, limits
//! are not enforced, and `weft check` says so.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod directories;
mod hierarchy;

use directories::{make, name_for, remove_one, remove_tree, write};
pub(crate) use hierarchy::{Hierarchies, Version};

/// The period of CPU quotas, as everybody has it.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// What a container may use; 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_millis: u64,
    pub(crate) pids: u64,
}

impl Limits {
    pub(crate) fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

/// The cgroups in which the mesh may make its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Delegation {
    /// There are none: limits cannot be enforced.
    #[default]
    None,
    /// One directory for each controller.
    V1(BTreeMap<String, PathBuf>),
    /// One directory for all.
    V2(PathBuf),
}

impl Delegation {
    /// Makes the mesh's cgroups where this process may, and gives them to the mesh's root.
    ///
    /// `foreign_root` is the host's owner of what the mesh's root makes, if that is another than we are.
    pub(crate) fn prepare(runtime_dir: &Path, foreign_root: Option<(u32, u32)>) -> Delegation {
        let prepare = || -> io::Result<Delegation> {
            let delegation = make(&Hierarchies::of_this_process()?, &name_for(runtime_dir))?;
            if let Delegation::V2(base) = &delegation {
                // Moving a container's process takes the right to write to a common ancestor: the base must be one.
                let leaf = base.join("node");
                fs::create_dir_all(&leaf)?;
                write(&leaf.join("cgroup.procs"), "0")?;
            }
            if let Some(root) = foreign_root {
                delegation.give_to(root)?;
            }
            Ok(delegation)
        };
        prepare().unwrap_or_default()
    }

    /// Makes them to see whether they can be made; the caller removes them.
    pub(crate) fn probe(runtime_dir: &Path) -> Delegation {
        Hierarchies::of_this_process()
            .and_then(|hierarchies| make(&hierarchies, &name_for(runtime_dir)))
            .unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Delegation::None
    }

    /// Makes a container's cgroup with its limits.
    ///
    /// # Errors
    /// What the kernel refuses, with the file that was written.
    pub(crate) fn create(&self, container: &str, limits: Limits) -> io::Result<Group> {
        let directories: Vec<PathBuf> = match self {
            Delegation::None => Vec::new(),
            Delegation::V1(controllers) => controllers
                .values()
                .map(|base| base.join(container))
                .collect(),
            Delegation::V2(base) => vec![base.join(container)],
        };
        for directory in &directories {
            fs::create_dir_all(directory)?;
        }
        let group = Group { directories };
        for (controller, file, value) in self.settings(limits) {
            if let Some(directory) = self.directory(container, controller) {
                write(&directory.join(file), &value)?;
            }
        }
        Ok(group)
    }

    /// Removes the mesh's cgroups; those that are still in use stay.
    pub(crate) fn remove(&self) {
        match self {
            Delegation::None => {}
            Delegation::V1(controllers) => controllers.values().for_each(|base| remove_tree(base)),
            Delegation::V2(base) => remove_tree(base),
        }
    }

    fn directory(&self, container: &str, controller: &str) -> Option<PathBuf> {
        match self {
            Delegation::None => None,
            Delegation::V1(controllers) => {
                controllers.get(controller).map(|base| base.join(container))
            }
            Delegation::V2(base) => Some(base.join(container)),
        }
    }

    /// Controller, file, content.
    fn settings(&self, limits: Limits) -> Vec<(&'static str, &'static str, String)> {
        let is_v1 = matches!(self, Delegation::V1(_));
        let quota = limits.cpu_millis.saturating_mul(CPU_PERIOD_MICROS) / 1000;
        let mut settings = Vec::new();
        if limits.memory_bytes > 0 {
            let file = if is_v1 {
                "memory.limit_in_bytes"
            } else {
                "memory.max"
            };
            settings.push(("memory", file, limits.memory_bytes.to_string()));
        }
        if limits.pids > 0 {
            settings.push(("pids", "pids.max", limits.pids.to_string()));
        }
        if limits.cpu_millis > 0 && is_v1 {
            settings.push(("cpu", "cpu.cfs_period_us", CPU_PERIOD_MICROS.to_string()));
            settings.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
        } else if limits.cpu_millis > 0 {
            settings.push(("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_MICROS}")));
        }
        settings
    }

    fn give_to(&self, (uid, gid): (u32, u32)) -> io::Result<()> {
        let directories: Vec<&PathBuf> = match self {
            Delegation::None => Vec::new(),
            Delegation::V1(controllers) => controllers.values().collect(),
            Delegation::V2(base) => vec![base],
        };
        for directory in directories {
            chown(directory, Some(uid), Some(gid))?;
            for file in [
                "cgroup.procs",
                "tasks",
                "cgroup.threads",
                "cgroup.subtree_control",
            ] {
                let path = directory.join(file);
                if path.exists() {
                    chown(&path, Some(uid), Some(gid))?;
                }
            }
        }
        Ok(())
    }
}

/// The cgroup of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    directories: Vec<PathBuf>,
}

impl Group {
    /// Moves this process in; its children are born there.
    pub(crate) fn join(&self) -> io::Result<()> {
        for directory in &self.directories {
            write(&directory.join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub(crate) fn memory_kills(&self) -> u64 {
        let count = |directory: &PathBuf| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .find_map(|file| {
                    let text = fs::read_to_string(directory.join(file)).ok()?;
                    let line = text
                        .lines()
                        .find_map(|line| line.strip_prefix("oom_kill "))?;
                    line.trim().parse::<u64>().ok()
                })
        };
        self.directories.iter().filter_map(count).sum()
    }

    /// Removes it; its processes have ended.
    pub(crate) fn remove(&self) {
        self.directories
            .iter()
            .for_each(|directory| remove_one(directory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_processor_is_half_a_period() {
        let limits = Limits {
            cpu_millis: 500,
            ..Limits::default()
        };

        let v2 = Delegation::V2("/c".into()).settings(limits);
        let v1 = Delegation::V1(BTreeMap::new()).settings(limits);

        assert_eq!(v2, vec![("cpu", "cpu.max", "50000 100000".to_owned())]);
        assert!(v1.contains(&("cpu", "cpu.cfs_quota_us", "50000".to_owned())));
    }

    #[test]
    fn no_limit_writes_nothing() {
        assert!(
            Delegation::V2("/c".into())
                .settings(Limits::default())
                .is_empty()
        );
    }
}
