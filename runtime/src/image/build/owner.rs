//! `--chown` of `COPY` and `ADD`: names are those of the image's own accounts.

use crate::image::error::ImageError;
use crate::image::stack::Stack;

use super::Failure;

/// Uid and gid for `user[:group]`.
pub(super) fn owner(files: &Stack, text: &str) -> Result<(u32, u32), Failure> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, primary) = match id(user) {
        // Docker gives files of a numeric user to the group of the same number.
        Some(uid) => (uid, uid),
        None => account(files, user)?,
    };
    let gid = match group {
        None | Some("") => primary,
        Some(group) => match id(group) {
            Some(gid) => gid,
            None => group_id(files, group)?,
        },
    };
    Ok((uid, gid))
}

/// The largest number is no id: it tells chown(2) to leave the owner as it is.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn account(files: &Stack, name: &str) -> Result<(u32, u32), Failure> {
    let line = find_line(files, "/etc/passwd", name)?;
    let ids = line.as_deref().and_then(|line| {
        let mut fields = line.split(':').skip(2);
        Some((id(fields.next()?)?, id(fields.next()?)?))
    });
    ids.ok_or_else(|| Failure::Refused(format!("no user {name} in the image's /etc/passwd")))
}

fn group_id(files: &Stack, name: &str) -> Result<u32, Failure> {
    let line = find_line(files, "/etc/group", name)?;
    let id = line.as_deref().and_then(|line| id(line.split(':').nth(2)?));
    id.ok_or_else(|| Failure::Refused(format!("no group {name} in the image's /etc/group")))
}

fn find_line(files: &Stack, path: &str, name: &str) -> Result<Option<String>, ImageError> {
    let bytes = files.read(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let line = lines.find(|line| line.split(':').next() == Some(name));
    Ok(line.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_are_looked_up_in_the_image_and_numbers_are_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(
            root.path().join("etc/passwd"),
            "root:x:0:0::/:\napp:x:100:101::/:\n",
        )
        .unwrap();
        fs::write(root.path().join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
        let files = Stack::of_layers(&[root.path().to_owned()]);

        let ids = |text: &str| owner(&files, text).ok();
        assert_eq!(ids("5"), Some((5, 5)));
        assert_eq!(ids("5:6"), Some((5, 6)));
        assert_eq!(ids("app"), Some((100, 101)));
        assert_eq!(ids("app:web"), Some((100, 33)));
        assert_eq!(ids("nobody"), None);
        assert_eq!(ids("4294967295"), None);
        assert_eq!(ids("0:4294967295"), None);
        assert_eq!(ids("app:nogroup"), None);
    }
}
