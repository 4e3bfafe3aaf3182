//! Paths of archive entries, made relative and free of everything that could leave the folder.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// PATH_MAX of Linux.
const LONGEST: usize = 4096;
/// NAME_MAX of Linux's file systems.
const LONGEST_NAME: usize = 255;

/// `/a/./b//c` as `a/b/c`; the root itself is the empty path.
pub(crate) fn clean(raw: &[u8]) -> Result<PathBuf, &'static str> {
    if raw.len() >= LONGEST {
        return Err("the path is longer than 4095 bytes");
    }
    if raw.contains(&0) {
        return Err("the path contains a zero byte");
    }
    let mut path = PathBuf::new();
    for part in raw.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("a path with '..' could leave the image and is refused"),
            name if name.len() > LONGEST_NAME => return Err("a name is longer than 255 bytes"),
            name => path.push(OsStr::from_bytes(name)),
        }
    }
    Ok(path)
}

/// Parent and name of a cleaned path; None for the root.
pub(crate) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_and_dotted_paths_become_relative() {
        assert_eq!(clean(b"/a/./b//c/").unwrap(), Path::new("a/b/c"));
        assert_eq!(clean(b"./").unwrap(), Path::new(""));
    }

    #[test]
    fn paths_that_could_leave_are_refused() {
        assert!(clean(b"../a").is_err());
        assert!(clean(b"a/../../b").is_err());
        assert!(clean(b"a\0b").is_err());
        assert!(clean(&[b'x'; 256]).is_err());
        assert!(clean(&b"x/".repeat(3000)).is_err());
    }
}
