//! Bytes that a configuration holds, or says where to find.

use std::io::Read;

use bytes::Bytes;
use weft_proto::envoy::config::core::v3::DataSource;
use weft_proto::envoy::config::core::v3::data_source::Specifier;

use super::at::{At, Invalid, required};
use super::control_plane::watched_directory;

/// The bytes of a source, read now; a file that changes is read again where somebody watches it.
pub(super) fn data_source(
    at: &At<'_>,
    wire: &DataSource,
    max_bytes: usize,
) -> Result<Bytes, Invalid> {
    let DataSource {
        watched_directory: directory,
        specifier,
    } = wire;
    if let Some(directory) = directory {
        at.watches(watched_directory(
            &at.field("watched_directory"),
            directory,
        )?);
    }
    let bytes = match required(&at.field("specifier"), specifier.as_ref())? {
        Specifier::InlineBytes(bytes) => bytes.clone(),
        Specifier::InlineString(text) => text.clone().into(),
        Specifier::Filename(path) => file(&at.field("filename"), path, max_bytes)?,
        Specifier::EnvironmentVariable(name) => std::env::var(name)
            .map_err(|error| at.field("environment_variable").refuse(error))?
            .into(),
    };
    if bytes.len() > max_bytes {
        let length = bytes.len();
        return Err(at.refuse(format_args!("{length} bytes are more than {max_bytes}")));
    }
    Ok(bytes)
}

/// No more of a file is read than is needed to see that it is too long.
fn file(at: &At<'_>, path: &str, max_bytes: usize) -> Result<Bytes, Invalid> {
    at.reads(path);
    let refused = |error| at.refuse(format_args!("{path:?}: {error}"));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(refused)?;
    file.take(max_bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(refused)?;
    Ok(bytes.into())
}
