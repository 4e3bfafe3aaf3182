//! Packs a layer folder into a tar archive: the inverse of `unpack`.
//!
//! Sorted by name and without anything that varies between two runs, so that equal folders give
//! equal archives and equal digests.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::attributes::{Attributes, pax_records};
use super::whiteout;
use crate::image::error::ImageError;

/// Writes the folder's content to `out`. Returns the bytes of file content.
///
/// Nobody else may change the folder meanwhile. Notes of an overlay mount are removed from it.
pub(crate) fn pack(root: &Path, out: impl Write) -> Result<u64, ImageError> {
    let mut builder = Builder::new(out);
    builder.sparse(false);
    let mut packer = Packer {
        root,
        builder,
        names: HashMap::new(),
        bytes: 0,
    };
    packer.walk()?;
    let done = packer.builder.into_inner().and_then(|mut out| out.flush());
    done.map_err(ImageError::at("packing", root))?;
    Ok(packer.bytes)
}

struct Packer<'p, W: Write> {
    root: &'p Path,
    builder: Builder<W>,
    /// First name of each file that has several.
    names: HashMap<(u64, u64), PathBuf>,
    bytes: u64,
}

impl<W: Write> Packer<'_, W> {
    fn walk(&mut self) -> Result<(), ImageError> {
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let full = self.root.join(&path);
            let metadata = fs::symlink_metadata(&full).map_err(ImageError::at("reading", &full))?;
            self.entry(&path, &full, &metadata)
                .map_err(ImageError::at("packing", &full))?;
            if metadata.is_dir() {
                pending.extend(children(&full, &path)?.into_iter().rev());
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, full: &Path, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        if whiteout::is_whiteout(full, metadata) {
            return self.deletion(path);
        }
        if metadata.is_dir() || metadata.is_file() {
            whiteout::strip_notes(full)?;
        }
        let attributes = Attributes::of_file(full, metadata)?;
        let mut header = header(&attributes);
        if metadata.is_dir() {
            return self.folder(path, full, &mut header, &attributes);
        }
        if metadata.nlink() > 1 {
            let file = (metadata.dev(), metadata.ino());
            if let Some(first) = self.names.get(&file) {
                header.set_entry_type(EntryType::Link);
                let first = first.clone();
                return self.link(&mut header, path, &first);
            }
            self.names.insert(file, path.to_owned());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self.link(&mut header, path, &fs::read_link(full)?);
        }
        if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
            return self.builder.append_data(&mut header, path, io::empty());
        }
        if kind.is_file() {
            return self.file(path, full, metadata.len(), &mut header, &attributes);
        }
        // Sockets and devices are of the container that made them, not of the image.
        Ok(())
    }

    fn folder(
        &mut self,
        path: &Path,
        full: &Path,
        header: &mut Header,
        attributes: &Attributes,
    ) -> io::Result<()> {
        header.set_entry_type(EntryType::Directory);
        self.extensions(attributes)?;
        let name = Path::new(".").join(path);
        let name = if path.as_os_str().is_empty() {
            &name
        } else {
            path
        };
        self.builder.append_data(header, name, io::empty())?;
        if whiteout::is_opaque(full) {
            let mut header = empty_file();
            let name = path.join(OsStr::from_bytes(whiteout::OPAQUE));
            self.builder.append_data(&mut header, name, io::empty())?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        full: &Path,
        size: u64,
        header: &mut Header,
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.extensions(attributes)?;
        header.set_size(size);
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(full)?;
        self.bytes += size;
        // A file that shrank would leave the archive in pieces; `take` guards against growth.
        let mut content = io::Read::take(file, size);
        self.builder.append_data(header, path, &mut content)?;
        if content.limit() != 0 {
            return Err(io::Error::other("it changed while it was read"));
        }
        Ok(())
    }

    fn link(&mut self, header: &mut Header, path: &Path, target: &Path) -> io::Result<()> {
        let bytes = target.as_os_str().as_bytes();
        if bytes.len() > header.as_old().linkname.len() {
            return self.builder.append_link(header, path, target);
        }
        // Byte by byte: `append_link` would tidy up short targets.
        header.set_link_name_literal(bytes)?;
        self.builder.append_data(header, path, io::empty())
    }

    fn deletion(&mut self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let name = [whiteout::PREFIX, name].concat();
        let path = path.with_file_name(OsStr::from_bytes(&name));
        self.builder
            .append_data(&mut empty_file(), path, io::empty())
    }

    fn extensions(&mut self, attributes: &Attributes) -> io::Result<()> {
        let records = pax_records(&attributes.xattrs);
        let records = records.iter().map(|(name, value)| (name.as_str(), *value));
        self.builder.append_pax_extensions(records)
    }
}

fn children(full: &Path, path: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(full)?
            .map(|entry| entry.map(|entry| path.join(entry.file_name())))
            .collect::<io::Result<Vec<PathBuf>>>()?;
        names.sort();
        Ok(names)
    };
    list().map_err(ImageError::at("listing", full))
}

fn header(attributes: &Attributes) -> Header {
    let mut header = Header::new_gnu();
    let (uid, gid) = attributes.owner.unwrap_or_default();
    header.set_mode(attributes.mode);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(u64::try_from(attributes.modified).unwrap_or(0));
    header.set_size(0);
    header
}

fn empty_file() -> Header {
    header(&Attributes {
        mode: 0o600,
        owner: Some((0, 0)),
        ..Attributes::default()
    })
}
