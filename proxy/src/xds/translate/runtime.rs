//! Runtime values of RTDS.

use weft_proto::envoy::service::runtime::v3::Runtime as Wire;
use weft_proto::wkt::struct_to_json;

use super::at::{At, Invalid, nonempty};
use crate::config::runtime::Layer;

/// One layer, by the name that its source has.
pub(super) fn layer(at: &At<'_>, wire: &Wire) -> Result<Layer, Invalid> {
    let Wire { name, layer } = wire;
    let name = nonempty(&at.field("name"), name)?;
    let values = layer.as_ref().map(struct_to_json).unwrap_or_default();
    Ok(Layer::new(name, &values))
}
