//! Small files that must be whole whenever somebody reads them, and names that become part of paths.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

/// Replaces a file in one step: a reader sees the old content or the new, never a part.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(temporary, path)
}

/// Replaces a file by a value in JSON.
pub(crate) fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?)
}

/// Reads a value in JSON; `None` where there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a directory with its content; there may be none.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a file; there may be none.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a name may become a file name: letters, digits, `.`, `_`, `-`, not led by a dot, at most 200.
pub(crate) fn is_safe_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leaves_its_directory_is_not_safe() {
        assert!(is_safe_name("reviews-v1-7d9f5.weft-proxy_0"));
        for name in ["", ".", "..", "a/b", "../a", ".hidden", "a b", "ä"] {
            assert!(!is_safe_name(name), "{name}");
        }
        assert!(!is_safe_name(&"a".repeat(201)));
    }

    #[test]
    fn a_replaced_file_leaves_no_temporary_one_behind() {
        let directory = tempfile::tempdir().expect("done");
        let path = directory.path().join("state.json");

        replace_json(&path, &[1, 2]).expect("done");
        replace_json(&path, &[3]).expect("done");

        assert_eq!(read_json::<Vec<i32>>(&path).expect("done"), Some(vec![3]));
        assert_eq!(fs::read_dir(directory.path()).expect("done").count(), 1);
    }
}
