//! What a file has besides content: mode, owner, time and extended attributes.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// PAX keys of extended attributes begin with this.
const PAX_XATTR: &[u8] = b"SCHILY.xattr.";

/// Attributes of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits with set-id and sticky bits: 0o7777.
    pub(crate) mode: u32,
    /// Owner and group; None: whoever writes the file.
    pub(crate) owner: Option<(u32, u32)>,
    /// Seconds since the epoch.
    pub(crate) modified: i64,
    /// Name and value, only of names that `is_portable`.
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    /// Of a folder that nobody described.
    pub(crate) fn folder() -> Attributes {
        Attributes {
            mode: 0o755,
            ..Attributes::default()
        }
    }

    /// As the header of an archive entry states them.
    pub(crate) fn of_entry<R: io::Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Attributes> {
        let header = entry.header();
        // The largest number is no id: it tells chown(2) to leave the owner as it is.
        let id = |id: u64| match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(invalid("its owner is no user or group id")),
        };
        let owner = (id(header.uid()?)?, id(header.gid()?)?);
        // Dates before 1970 or beyond every calendar are not worth refusing an image for.
        let modified = header.mtime().unwrap_or(0).min(u64::from(u32::MAX)) as i64;
        let mode = header.mode()? & 0o7777;
        Ok(Attributes {
            mode,
            owner: Some(owner),
            modified,
            xattrs: pax_xattrs(entry)?,
        })
    }

    /// Of a file on disk; the link itself where it is a symbolic link.
    pub(crate) fn of_file(path: &Path, metadata: &Metadata) -> io::Result<Attributes> {
        let xattrs = if metadata.is_file() || metadata.is_dir() {
            file_xattrs(path)?
        } else {
            Vec::new()
        };
        Ok(Attributes {
            mode: metadata.mode() & 0o7777,
            owner: Some((metadata.uid(), metadata.gid())),
            modified: metadata.mtime(),
            xattrs,
        })
    }
}

/// Whether an attribute belongs to the image rather than to the machine or the overlay.
///
/// `user.overlay.*` must never come from an archive: it would forge whiteouts and redirects.
pub(crate) fn is_portable(name: &str) -> bool {
    name == "security.capability"
        || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

fn pax_xattrs<R: io::Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(found);
    };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension.key_bytes().strip_prefix(PAX_XATTR) else {
            continue;
        };
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if is_portable(name) && !name.contains('\0') {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn file_xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if is_unsupported(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in names {
        let Some(name) = OsStr::to_str(&name) else {
            continue;
        };
        if let Some(value) = is_portable(name)
            .then(|| xattr::get(path, name))
            .transpose()?
        {
            found.push((name.to_owned(), value.unwrap_or_default()));
        }
    }
    found.sort();
    Ok(found)
}

/// The PAX records of these attributes.
pub(crate) fn pax_records(xattrs: &[(String, Vec<u8>)]) -> Vec<(String, &[u8])> {
    let prefix = String::from_utf8_lossy(PAX_XATTR);
    xattrs
        .iter()
        .map(|(name, value)| (format!("{prefix}{name}"), value.as_slice()))
        .collect()
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
