//! Images of an archive that `docker save` wrote.

use serde::Deserialize;

use super::{Bundle, FoundImage, FoundLayer};
use crate::image::config::{Document, host_architecture};
use crate::image::digest::Digest;
use crate::image::error::ImageError;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// All images of the archive.
pub(super) fn images(bundle: &Bundle) -> Result<Vec<FoundImage>, ImageError> {
    let items: Vec<Item> = serde_json::from_slice(&bundle.metadata("manifest.json")?)
        .map_err(|error| ImageError::archive(format!("manifest.json: {error}")))?;
    if items.is_empty() {
        return Err(ImageError::archive("manifest.json lists no image"));
    }
    items.into_iter().map(|item| image(bundle, item)).collect()
}

fn image(bundle: &Bundle, item: Item) -> Result<FoundImage, ImageError> {
    let config = bundle.metadata(&item.config)?;
    verify_name(&item.config, &config)?;
    let document = Document::parse(&config)?;
    if !document.runs_here() {
        return Err(ImageError::archive(format!(
            "its image is for {}/{}, this machine is linux/{}",
            document.os,
            document.architecture,
            host_architecture()
        )));
    }
    let layer = |name: &String| {
        let path = bundle.path(name);
        let path = path.ok_or_else(|| ImageError::archive(format!("layer {name} is missing")))?;
        Ok(FoundLayer {
            path: path.to_owned(),
            promise: None,
        })
    };
    let names = item.repo_tags.unwrap_or_default();
    Ok(FoundImage {
        names: names.iter().filter_map(|name| name.parse().ok()).collect(),
        config,
        layers: item
            .layers
            .unwrap_or_default()
            .iter()
            .map(layer)
            .collect::<Result<_, _>>()?,
        manifest: None,
    })
}

/// The configuration's file is named by its digest.
fn verify_name(name: &str, config: &[u8]) -> Result<(), ImageError> {
    let stem = name.rsplit('/').next().unwrap_or(name);
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    match format!("sha256:{stem}").parse::<Digest>() {
        Ok(promised) => promised.verify(name, &Digest::of(config)),
        Err(_) => Ok(()),
    }
}
