//! Walks the entries of an untrusted tar archive within bounds.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use crate::image::error::ImageError;

/// What one archive may make us read and write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Plain bytes of the archive.
    pub(crate) bytes: u64,
    /// Number of entries.
    pub(crate) entries: u64,
}

/// Larger than any image in use, smaller than what fills a disk by surprise.
pub(crate) const LAYER: Limits = Limits {
    bytes: 64 << 30,
    entries: 2_000_000,
};

/// Long names and PAX records of one entry are held in memory, so they get a bound of their own.
const HEADER_BYTES: u64 = 4 << 20;

/// An entry as visitors see it.
pub(crate) type Entry<'a, 'r> = tar::Entry<'a, Bounded<'r>>;

/// Calls `visit` for each entry, then reads `source` to its end.
pub(crate) fn for_each<'r>(
    source: &'r mut (dyn Read + 'r),
    limits: Limits,
    mut visit: impl FnMut(&mut Entry<'_, 'r>) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let headers = Rc::new(Cell::new(None));
    let mut archive = tar::Archive::new(Bounded {
        inner: source,
        left: limits.bytes,
        headers: Rc::clone(&headers),
    });
    let reading = || ImageError::io("reading the tar archive");
    let mut count = 0;
    let mut entries = archive.entries().map_err(reading())?;
    loop {
        headers.set(Some(HEADER_BYTES));
        let next = entries.next();
        headers.set(None);
        let Some(entry) = next else { break };
        let mut entry = entry.map_err(reading())?;
        count += 1;
        if count > limits.entries {
            return Err(too_large("the number of entries", limits.entries));
        }
        // Sparse files can be larger than the archive that holds them.
        if entry.size() > limits.bytes || entry.header().size().map_err(reading())? > limits.bytes {
            return Err(too_large("a file of the archive", limits.bytes));
        }
        visit(&mut entry)?;
        // What the visitor left unread would otherwise be charged to the next entry's headers.
        io::copy(&mut entry, &mut io::sink()).map_err(reading())?;
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(reading())?;
    Ok(())
}

fn too_large(what: &str, limit: u64) -> ImageError {
    ImageError::TooLarge {
        what: what.to_owned(),
        limit: limit.to_string(),
    }
}

/// Fails when more is read than allowed.
pub(crate) struct Bounded<'r> {
    inner: &'r mut (dyn Read + 'r),
    left: u64,
    headers: Rc<Cell<Option<u64>>>,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("it unpacks to more bytes than are allowed"))?;
        if let Some(left) = self.headers.get() {
            let left = left
                .checked_sub(count as u64)
                .ok_or_else(|| io::Error::other("the headers of an entry are too long"))?;
            self.headers.set(Some(left));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        bytes: 64 << 20,
        entries: 3,
    };

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &b"abc"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn names(bytes: &[u8]) -> Result<Vec<String>, ImageError> {
        let mut found = Vec::new();
        for_each(&mut &bytes[..], SMALL, |entry| {
            found.push(String::from_utf8_lossy(&entry.path_bytes()).into_owned());
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn entries_that_nobody_reads_are_skipped() {
        assert_eq!(names(&archive(&["a", "b", "c"])).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn too_many_entries_are_refused() {
        assert!(matches!(
            names(&archive(&["a", "b", "c", "d"])),
            Err(ImageError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_name_of_many_megabytes_is_refused_before_it_fills_memory() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(32 << 20);
        header.set_cksum();
        builder
            .append(&header, io::repeat(b'x').take(32 << 20))
            .unwrap();
        let bytes = builder.into_inner().unwrap();

        let error = names(&bytes).unwrap_err();

        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("too long"), "{source}");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut bytes = archive(&["a", "b"]);
        for position in 0..1024 {
            let kept = bytes[position];
            for value in [0, 0xff, b'7', b'x', b'L', b'S'] {
                bytes[position] = value;
                let _ = names(&bytes);
            }
            bytes[position] = kept;
        }
        for length in 0..bytes.len() {
            let _ = names(&bytes[..length]);
        }
    }
}
