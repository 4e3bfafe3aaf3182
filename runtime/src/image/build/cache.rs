//! Results of build steps, by everything they depend on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::image::digest::{Digest, Hashing};
use crate::image::error::ImageError;
use crate::image::layers::{self, Layer};
use crate::image::layout::Layout;

/// What a step depends on. Fields are framed by their length, so that no two lists of fields
/// give the same key.
pub(super) struct Key {
    state: Hashing<io::Sink>,
}

impl Key {
    /// For a kind of step on top of these layers.
    pub(super) fn new(kind: &str, below: &[Layer]) -> Key {
        let mut key = Key {
            state: Hashing::new(io::sink()),
        };
        key.field(kind.as_bytes());
        key.field(&below.len().to_be_bytes());
        for layer in below {
            key.field(layer.diff.hex().as_bytes());
        }
        key
    }

    pub(super) fn field(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_be_bytes();
        for part in [length.as_slice(), bytes] {
            self.state.write_all(part).expect("a sink takes everything");
        }
    }

    pub(super) fn fields<T: AsRef<[u8]>>(&mut self, fields: impl IntoIterator<Item = T>) {
        let fields: Vec<T> = fields.into_iter().collect();
        self.field(&fields.len().to_be_bytes());
        fields.iter().for_each(|field| self.field(field.as_ref()));
    }

    pub(super) fn digest(self) -> Digest {
        self.state.finish().1
    }
}

/// A result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cached {
    pub(super) diff: Digest,
    /// When the step was carried out.
    pub(super) created: String,
}

/// The result of an earlier step, where its layer is still there.
pub(super) fn get(layout: &Layout, key: &Digest) -> Option<(Layer, String)> {
    let path = path(layout, key);
    let cached: Cached = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let layer = layers::find(layout, &cached.diff)?;
    // Marks it as used; when that fails it is merely forgotten earlier.
    let _ = File::options()
        .append(true)
        .open(&path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    Some((layer, cached.created))
}

pub(super) fn put(layout: &Layout, key: &Digest, cached: &Cached) -> Result<(), ImageError> {
    let path = path(layout, key);
    let bytes = serde_json::to_vec(cached)
        .map_err(|error| ImageError::at("writing", &path)(error.into()))?;
    let mut file = layout.scratch_file()?;
    file.write_all(&bytes)
        .map_err(ImageError::at("writing", &path))?;
    layout.publish(file, &path)
}

/// The layers that the cache would use.
pub(crate) fn layers(layout: &Layout) -> Result<Vec<Digest>, ImageError> {
    let files = files(layout)?.into_iter();
    let cached =
        files.filter_map(|path| serde_json::from_slice::<Cached>(&fs::read(path).ok()?).ok());
    Ok(cached.map(|cached| cached.diff).collect())
}

/// Forgets results that nobody used since `limit`.
pub(crate) fn forget_older(layout: &Layout, limit: SystemTime) -> Result<(), ImageError> {
    for path in files(layout)? {
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| modified < limit) {
            fs::remove_file(&path).map_err(ImageError::at("removing", &path))?;
        }
    }
    Ok(())
}

fn files(layout: &Layout) -> Result<Vec<PathBuf>, ImageError> {
    let folder = layout.cache();
    let entries = fs::read_dir(&folder).map_err(ImageError::at("listing", &folder))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn path(layout: &Layout, key: &Digest) -> PathBuf {
    layout.cache().join(key.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_when_only_the_border_between_fields_does() {
        let key = |fields: &[&str]| {
            let mut key = Key::new("run", &[]);
            key.fields(fields);
            key.digest()
        };
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a", ""]), key(&["a"]));
    }
}
