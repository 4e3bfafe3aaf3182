//! Deletions, in the archive's notation and in overlayfs'.
//!
//! An archive says `.wh.NAME`, and `.wh..wh..opq` for "nothing below shines through"; an overlay
//! mounted with `userxattr` (overlayfs, "whiteouts and opaque directories") sees a 0:0 character
//! device, which anybody may make, and the attribute `user.overlay.opaque`.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Before the name of what is deleted.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// Before names that are notation, not deletion.
pub(crate) const META_PREFIX: &[u8] = b".wh..wh.";
/// The folder is opaque.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

pub(crate) const OPAQUE_XATTR: &str = "user.overlay.opaque";
const WHITEOUT_XATTR: &str = "user.overlay.whiteout";
const XATTR_PREFIX: &str = "user.overlay.";

/// Whether this file of a layer folder deletes what lies below it.
pub(crate) fn is_whiteout(path: &Path, metadata: &Metadata) -> bool {
    let is_device = metadata.file_type().is_char_device() && metadata.rdev() == 0;
    is_device
        || (metadata.is_file()
            && metadata.len() == 0
            && matches!(xattr::get(path, WHITEOUT_XATTR), Ok(Some(_))))
}

/// Whether nothing of lower layers is seen in this folder of a layer.
pub(crate) fn is_opaque(folder: &Path) -> bool {
    matches!(xattr::get(folder, OPAQUE_XATTR), Ok(Some(value)) if value == b"y")
}

/// Removes what an overlay mount noted for itself; an upper folder becomes a layer by it.
pub(crate) fn strip_notes(path: &Path) -> io::Result<()> {
    for name in xattr::list(path)? {
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(XATTR_PREFIX) && name != OPAQUE_XATTR && name != WHITEOUT_XATTR {
            xattr::remove(path, name)?;
        }
    }
    Ok(())
}
