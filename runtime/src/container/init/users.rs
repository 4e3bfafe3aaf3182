//! Who a command runs as: numbers, or names of the container's own /etc/passwd and /etc/group.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// No passwd or group file is larger; an image may contain anything.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a user could not be found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("user {0} is not in the container's /etc/passwd")]
    NoUser(String),
    #[error("group {0} is not in the container's /etc/group")]
    NoGroup(String),
}

/// A user, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Finds `uid[:gid]`, `name[:group]` or nothing (root) in the files of the current root filesystem.
pub(crate) fn resolve(user: &str) -> Result<Identity, UserError> {
    resolve_in(user, &read("/etc/passwd"), &read("/etc/group"))
}

fn read(path: &str) -> String {
    let mut text = Vec::new();
    let read = || -> io::Result<()> {
        // Only a regular file: an image could put a pipe there.
        if Path::new(path).metadata()?.is_file() {
            File::open(path)?
                .take(MAX_FILE_BYTES)
                .read_to_end(&mut text)?;
        }
        Ok(())
    };
    // An image without users is a good image.
    let mut read = read;
    let _ = read();
    String::from_utf8_lossy(&text).into_owned()
}

fn resolve_in(user: &str, passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user, chosen_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd_entry(passwd, user);
    let uid = entry.map(|entry| entry.uid).or_else(|| user.parse().ok());
    let uid = uid.ok_or_else(|| UserError::NoUser(user.to_owned()))?;
    let gid = match chosen_group {
        Some(name) => group_id(group, name).ok_or_else(|| UserError::NoGroup(name.to_owned()))?,
        None => entry.map_or(0, |entry| entry.gid),
    };
    let groups = match (entry, chosen_group) {
        (Some(entry), None) => groups_of(group, entry.name),
        _ => Vec::new(),
    };
    let home = entry.map_or("/", |entry| entry.home).to_owned();
    Ok(Identity {
        uid,
        gid,
        groups,
        home,
    })
}

#[derive(Clone, Copy)]
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// By name or number, as passwd(5).
fn passwd_entry<'a>(passwd: &'a str, user: &str) -> Option<PasswdEntry<'a>> {
    let number = user.parse::<u32>().ok();
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            return None;
        };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let is_meant = name == user || number == Some(uid);
        is_meant.then_some(PasswdEntry {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn group_id(group: &str, wanted: &str) -> Option<u32> {
    let by_name = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        (name == wanted).then_some(gid)
    });
    by_name.or_else(|| wanted.parse().ok())
}

/// The groups that list a user as a member, as group(5).
fn groups_of(group: &str, user: &str) -> Vec<u32> {
    group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            let members = fields.next()?;
            members
                .split(',')
                .any(|member| member == user)
                .then_some(gid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nredis:x:999:1000::/data:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nredis:x:1000:\ntty:x:5:redis,nobody\nbroken:x:y\n";

    fn resolved(user: &str) -> Result<Identity, UserError> {
        resolve_in(user, PASSWD, GROUP)
    }

    #[test]
    fn a_name_brings_its_group_its_groups_and_its_home() {
        let identity = resolved("redis").expect("a user");

        assert_eq!(
            identity,
            Identity {
                uid: 999,
                gid: 1000,
                groups: vec![5],
                home: "/data".into()
            }
        );
    }

    #[test]
    fn nobody_named_means_root() {
        assert_eq!(
            resolved("").map(|identity| (identity.uid, identity.home)),
            Ok((0, "/root".into()))
        );
    }

    #[test]
    fn a_number_needs_no_entry() {
        assert_eq!(
            resolved("1337").map(|identity| (identity.uid, identity.gid)),
            Ok((1337, 0))
        );
        assert_eq!(
            resolved("1337:1338").map(|identity| (identity.uid, identity.gid)),
            Ok((1337, 1338))
        );
    }

    #[test]
    fn a_chosen_group_replaces_all_others() {
        let identity = resolved("redis:tty").expect("a user");

        assert_eq!((identity.gid, identity.groups), (5, vec![]));
    }

    #[test]
    fn a_name_that_is_not_there_is_refused() {
        assert_eq!(
            resolved("postgres"),
            Err(UserError::NoUser("postgres".into()))
        );
        assert_eq!(
            resolved("redis:wheel"),
            Err(UserError::NoGroup("wheel".into()))
        );
    }
}
