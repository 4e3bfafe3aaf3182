//! Turns the folder that a step wrote into a layer of the store, once for equal inputs.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::cache::{self, Cached, Key};
use super::stage::Stage;
use super::{Builder, Failure};
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::layer::pack::pack;
use crate::image::layers::{self, Layer, Staged, StagedBlob};

impl Builder<'_> {
    /// Adds the layer that the cache has for `key`, or the one that `write` fills.
    pub(super) fn layer(
        &mut self,
        stage: &mut Stage,
        text: &str,
        key: Key,
        write: impl FnOnce(&Path) -> Result<(), ImageError>,
    ) -> Result<(), Failure> {
        let key = key.digest();
        if self.take_cached(stage, text, &key) {
            return Ok(());
        }
        let scratch = self.store.layout.scratch()?;
        let folder = scratch.path().join("layer");
        fs::create_dir(&folder).map_err(ImageError::at("making", &folder))?;
        write(&folder)?;
        Ok(self.commit(stage, text, &key, &scratch, &folder)?)
    }

    /// Whether the cache had the result of this step.
    pub(super) fn take_cached(&mut self, stage: &mut Stage, text: &str, key: &Digest) -> bool {
        if self.request.no_cache {
            return false;
        }
        let Some((layer, created)) = cache::get(&self.store.layout, key) else {
            return false;
        };
        (self.progress)("  cached".to_owned());
        stage.created = created;
        stage.record(text, Some(layer));
        true
    }

    /// Packs a folder of `scratch` as the stage's next layer.
    pub(super) fn commit(
        &mut self,
        stage: &mut Stage,
        text: &str,
        key: &Digest,
        scratch: &TempDir,
        folder: &Path,
    ) -> Result<(), ImageError> {
        let layout = &self.store.layout;
        let (blob, written, unpacked_bytes) =
            layers::compress_blob(layout, |out| pack(folder, out))?;
        let layer: Layer = match layers::find(layout, &written.diff) {
            Some(known) => known,
            None => {
                let layer = written.layer(unpacked_bytes);
                let staged = Staged {
                    layer: layer.clone(),
                    folder: folder.to_owned(),
                    blob: StagedBlob::Written(blob),
                };
                layers::install(layout, scratch, vec![staged])?;
                layer
            }
        };
        stage.created = self.now();
        let cached = Cached {
            diff: layer.diff.clone(),
            created: stage.created.clone(),
        };
        cache::put(layout, key, &cached)?;
        stage.record(text, Some(layer));
        Ok(())
    }
}
