//! Where cgroups are mounted and which of them is ours, in version 1, version 2, or both at once.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Which version carries the controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    None,
    One,
    Two,
}

#[derive(Debug)]
struct Mount {
    /// The cgroup that the mount shows as its root.
    root: PathBuf,
    target: PathBuf,
    is_v2: bool,
    options: String,
}

/// The hierarchies that this process sees.
#[derive(Debug)]
pub(crate) struct Hierarchies {
    mounts: Vec<Mount>,
    /// Controllers and path, as in /proc/self/cgroup; no controller is version 2.
    own: Vec<(String, PathBuf)>,
}

impl Hierarchies {
    pub(crate) fn of_this_process() -> io::Result<Hierarchies> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
        let cgroup = fs::read_to_string("/proc/self/cgroup")?;
        Ok(Hierarchies::parse(&mountinfo, &cgroup))
    }

    /// From the texts of proc_pid_mountinfo(5) and cgroups(7).
    pub(super) fn parse(mountinfo: &str, cgroup: &str) -> Hierarchies {
        let own = cgroup.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?.to_owned(), PathBuf::from(fields.next()?)))
        });
        Hierarchies {
            mounts: mountinfo.lines().filter_map(parse_mount).collect(),
            own: own.collect(),
        }
    }

    /// The version that limits memory here.
    pub(crate) fn version(&self) -> Version {
        let has_v1 = self
            .mounts
            .iter()
            .any(|mount| mount.has_controller("memory"));
        let has_v2 = self.mounts.iter().any(|mount| mount.is_v2);
        match (has_v1, has_v2) {
            (true, _) => Version::One,
            (false, true) => Version::Two,
            (false, false) => Version::None,
        }
    }

    /// Our own cgroup of a controller of version 1, or of version 2 for no controller.
    pub(crate) fn own_directory(&self, controller: &str) -> Option<PathBuf> {
        let is_v2 = controller.is_empty();
        let mount = self.mounts.iter().find(|mount| {
            if is_v2 {
                mount.is_v2
            } else {
                mount.has_controller(controller)
            }
        })?;
        let (_, path) = self
            .own
            .iter()
            .find(|(controllers, _)| controllers.split(',').any(|name| name == controller))?;
        let below = path.strip_prefix(&mount.root).unwrap_or(Path::new(""));
        Some(mount.target.join(below))
    }
}

impl Mount {
    fn has_controller(&self, controller: &str) -> bool {
        !self.is_v2 && self.options.split(',').any(|option| option == controller)
    }
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, target) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let kind = right.next()?;
    if !matches!(kind, "cgroup" | "cgroup2") {
        return None;
    }
    Some(Mount {
        root: root.into(),
        target: target.into(),
        is_v2: kind == "cgroup2",
        options: right.nth(1)?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn on_a_hybrid_machine_the_controllers_are_those_of_version_one() {
        let cgroup = "4:memory:/system/a\n3:cpu,cpuacct:/\n0::/user\n";
        let hierarchies = Hierarchies::parse(HYBRID, cgroup);

        assert_eq!(hierarchies.version(), Version::One);
        assert_eq!(
            hierarchies.own_directory("memory"),
            Some(PathBuf::from("/sys/fs/cgroup/memory/system/a"))
        );
        assert_eq!(
            hierarchies.own_directory("cpu"),
            Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"))
        );
    }

    #[test]
    fn a_mount_that_shows_a_part_of_the_hierarchy_is_followed() {
        let mountinfo = "29 24 0:26 /machine/a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let hierarchies = Hierarchies::parse(mountinfo, "0::/machine/a/b\n");

        assert_eq!(hierarchies.version(), Version::Two);
        assert_eq!(
            hierarchies.own_directory(""),
            Some(PathBuf::from("/sys/fs/cgroup/b"))
        );
    }

    #[test]
    fn a_machine_without_cgroups_has_none() {
        let hierarchies = Hierarchies::parse("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "");

        assert_eq!(hierarchies.version(), Version::None);
    }
}
