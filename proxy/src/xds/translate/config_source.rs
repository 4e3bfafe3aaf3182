//! Where what is named comes from.

use weft_proto::envoy::config::core::v3::ConfigSource;

use super::at::{At, Invalid, Named, required};
use super::control_plane::awaited;
use crate::xds::kind::Kind;

/// Takes down that a resource of this name is needed, and from where.
pub(super) fn needs(
    at: &At<'_>,
    kind: Kind,
    name: &str,
    wire: Option<&ConfigSource>,
) -> Result<(), Invalid> {
    let (source, limit) = awaited(at, required(at, wire)?)?;
    at.needs(Named {
        kind,
        name: name.into(),
        field: at.to_string(),
        source,
        limit,
    });
    Ok(())
}
