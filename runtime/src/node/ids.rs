//! Which host ids the mesh's user namespace consists of.
//!
//! Real root gives the mesh a subordinate range, so that root in a container is nobody on the host. An ordinary
//! user becomes root of the mesh himself, and his subordinate range is everybody else.

use std::path::Path;
use std::{fs, io};

use nix::unistd::{Gid, Uid, User};
use serde::{Deserialize, Serialize};

/// The base of the range that root uses where /etc/subuid gives root none: far from those that
/// distributions hand out, and below 2^31, which some programs take for negative.
const DEFAULT_BASE: u32 = 0x7765_0000;
/// What images expect: ids up to 65535.
const IDS: u32 = 65536;

/// Why there are no ids for the mesh.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdsError {
    #[error(
        "{user} has no subordinate ids in {file}: as root, run `usermod --add-subuids 100000-165535 --add-subgids \
         100000-165535 {user}`, or add the line `{user}:100000:65536` to /etc/subuid and /etc/subgid"
    )]
    NoRange { user: String, file: &'static str },
    #[error(
        "{file} gives {user} only {count} subordinate ids; weft needs {needed}: widen that line"
    )]
    RangeTooSmall {
        user: String,
        file: &'static str,
        count: u32,
        needed: u32,
    },
    #[error("reading {file}")]
    Read {
        file: &'static str,
        source: io::Error,
    },
}

/// A range of host ids that a user may give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubordinateRange {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// How the ids of the mesh map to the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IdPlan {
    /// Written by real root.
    Root {
        uids: SubordinateRange,
        gids: SubordinateRange,
    },
    /// Written by newuidmap(1) and newgidmap(1).
    User {
        uid: u32,
        gid: u32,
        uids: SubordinateRange,
        gids: SubordinateRange,
    },
}

impl IdPlan {
    /// The plan of whoever runs this process.
    ///
    /// # Errors
    /// An ordinary user without subordinate ids has none.
    pub(crate) fn of_this_user() -> Result<IdPlan, IdsError> {
        let uid = Uid::effective();
        let user = user_name(uid);
        let uids = read_range("/etc/subuid", &user, uid)?;
        let gids = read_range("/etc/subgid", &user, uid)?;
        if uid.is_root() {
            return Ok(IdPlan::Root {
                uids: uids
                    .filter(|range| range.count >= IDS)
                    .unwrap_or(DEFAULT_RANGE),
                gids: gids
                    .filter(|range| range.count >= IDS)
                    .unwrap_or(DEFAULT_RANGE),
            });
        }
        Ok(IdPlan::User {
            uid: uid.as_raw(),
            gid: Gid::effective().as_raw(),
            uids: require(uids, &user, "/etc/subuid")?,
            gids: require(gids, &user, "/etc/subgid")?,
        })
    }

    /// The host's owner of what the mesh's root makes, where that isn't whoever runs this process.
    pub(crate) fn foreign_root(&self) -> Option<(u32, u32)> {
        match self {
            IdPlan::Root { uids, gids } => Some((uids.first, gids.first)),
            IdPlan::User { .. } => None,
        }
    }
}

const DEFAULT_RANGE: SubordinateRange = SubordinateRange {
    first: DEFAULT_BASE,
    count: IDS,
};

/// A user's name, or the number where there is no name.
pub(crate) fn user_name(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn require(
    range: Option<SubordinateRange>,
    user: &str,
    file: &'static str,
) -> Result<SubordinateRange, IdsError> {
    let range = range.ok_or_else(|| IdsError::NoRange {
        user: user.to_owned(),
        file,
    })?;
    // Id 0 is the user himself.
    if range.count < IDS - 1 {
        return Err(IdsError::RangeTooSmall {
            user: user.to_owned(),
            file,
            count: range.count,
            needed: IDS - 1,
        });
    }
    Ok(SubordinateRange {
        count: IDS - 1,
        ..range
    })
}

fn read_range(
    file: &'static str,
    user: &str,
    uid: Uid,
) -> Result<Option<SubordinateRange>, IdsError> {
    match fs::read_to_string(Path::new(file)) {
        Ok(text) => Ok(find_range(&text, user, uid.as_raw())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdsError::Read { file, source }),
    }
}

/// The widest range of a user in the format of subuid(5).
fn find_range(text: &str, user: &str, uid: u32) -> Option<SubordinateRange> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let first = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok()?;
            (owner == user || owner == uid).then_some(SubordinateRange { first, count })
        })
        .max_by_key(|range| range.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBUID: &str =
        "anna:100000:65536\nbob:165536:1000\n# a comment\n1003:300000:65536\nbob:400000:65536\n";

    #[test]
    fn a_user_gets_his_widest_range() {
        let range = find_range(SUBUID, "bob", 1002);

        assert_eq!(
            range,
            Some(SubordinateRange {
                first: 400_000,
                count: 65536
            })
        );
    }

    #[test]
    fn a_range_may_name_the_user_by_number() {
        let range = find_range(SUBUID, "carla", 1003);

        assert_eq!(
            range,
            Some(SubordinateRange {
                first: 300_000,
                count: 65536
            })
        );
    }

    #[test]
    fn a_user_without_a_range_is_told_the_line_to_add() {
        let range = find_range(SUBUID, "dora", 1004);

        let error = require(range, "dora", "/etc/subuid").expect_err("there is no range");

        assert!(error.to_string().contains("dora:100000:65536"), "{error}");
    }

    #[test]
    fn a_range_that_cannot_hold_the_ids_of_images_is_refused() {
        let range = Some(SubordinateRange {
            first: 1,
            count: 1000,
        });

        assert!(matches!(
            require(range, "bob", "/etc/subuid"),
            Err(IdsError::RangeTooSmall { count: 1000, .. })
        ));
    }
}
