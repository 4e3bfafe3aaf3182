//! Making and removing the directories that cgroups are.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::{Delegation, Hierarchies, Version};

/// A cgroup is busy until the kernel has taken the last of its ended processes out.
const REMOVE_ATTEMPTS: u32 = 50;

pub(super) fn name_for(runtime_dir: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    runtime_dir.hash(&mut hasher);
    format!("weft-{:016x}", hasher.finish())
}

pub(super) fn make(hierarchies: &Hierarchies, name: &str) -> io::Result<Delegation> {
    match hierarchies.version() {
        Version::One => make_v1(hierarchies, name),
        Version::Two => make_v2(hierarchies, name),
        Version::None => Ok(Delegation::None),
    }
}

fn make_v1(hierarchies: &Hierarchies, name: &str) -> io::Result<Delegation> {
    let mut controllers = BTreeMap::new();
    for controller in ["memory", "pids", "cpu"] {
        if let Some(own) = hierarchies.own_directory(controller) {
            let directory = own.join(name);
            fs::create_dir_all(&directory)?;
            controllers.insert(controller.to_owned(), directory);
        }
    }
    Ok(if controllers.is_empty() {
        Delegation::None
    } else {
        Delegation::V1(controllers)
    })
}

/// The nearest cgroup above us whose children have controllers; only one without processes can be that.
fn make_v2(hierarchies: &Hierarchies, name: &str) -> io::Result<Delegation> {
    let Some(own) = hierarchies.own_directory("") else {
        return Ok(Delegation::None);
    };
    let parent = own.ancestors().find(|directory| {
        fs::read_to_string(directory.join("cgroup.subtree_control"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "memory"))
    });
    let Some(parent) = parent else {
        return Ok(Delegation::None);
    };
    let base = parent.join(name);
    fs::create_dir_all(&base)?;
    for controller in ["+memory", "+pids", "+cpu"] {
        // Those that the parent does not hand down are refused; limits of that kind then are not enforced.
        let _ = write(&base.join("cgroup.subtree_control"), controller);
    }
    Ok(Delegation::V2(base))
}

pub(super) fn write(path: &Path, content: &str) -> io::Result<()> {
    fs::write(path, content)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

pub(super) fn remove_tree(base: &Path) {
    let children = fs::read_dir(base).into_iter().flatten().flatten();
    for child in children.filter(|child| child.path().is_dir()) {
        remove_one(&child.path());
    }
    remove_one(base);
}

pub(super) fn remove_one(directory: &Path) {
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                sleep(Duration::from_millis(10))
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hierarchy of version 2 as files, and us in `/session/scope` of it.
    fn hierarchy(root: &Path, distributing: &str) -> Hierarchies {
        fs::create_dir_all(root.join("session/scope")).expect("directories");
        for directory in ["", "session", "session/scope"] {
            let controllers = if directory == distributing {
                "cpu memory pids\n"
            } else {
                "\n"
            };
            let path = root.join(directory).join("cgroup.subtree_control");
            fs::write(path, controllers).expect("a file");
        }
        let mount = format!("29 24 0:26 / {} rw - cgroup2 cgroup2 rw\n", root.display());
        Hierarchies::parse(&mount, "0::/session/scope\n")
    }

    #[test]
    fn the_nearest_cgroup_that_hands_down_memory_is_the_parent() {
        let root = tempfile::tempdir().expect("a directory");
        let hierarchies = hierarchy(root.path(), "session");

        let delegation = make(&hierarchies, "weft-test").expect("made");

        assert_eq!(
            delegation,
            Delegation::V2(root.path().join("session/weft-test"))
        );
    }

    #[test]
    fn without_controllers_there_is_nothing_to_delegate() {
        let root = tempfile::tempdir().expect("a directory");
        let hierarchies = hierarchy(root.path(), "nowhere");

        assert_eq!(
            make(&hierarchies, "weft-test").expect("looked"),
            Delegation::None
        );
    }
}
