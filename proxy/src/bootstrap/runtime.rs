//! A bootstrap's `layered_runtime`.

use weft_proto::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use weft_proto::envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer};
use weft_proto::wkt::struct_to_json;

use super::{Problem, problem};
use crate::config::runtime::{Layer, Runtime};

/// Keys that only Envoy's own code reads.
const OF_ENVOY: [&str; 3] = ["envoy.", "re2.", "overload."];

/// All layers; those whose values come later than the configuration are refused.
pub(super) fn runtime(wire: &LayeredRuntime) -> Result<Runtime, Problem> {
    let LayeredRuntime { layers } = wire;
    let layers = layers.iter().enumerate().map(|(index, wire)| {
        let RuntimeLayer {
            name,
            layer_specifier,
        } = wire;
        let field = format!("layered_runtime.layers[{index}]");
        let refused = |kind| {
            Err(problem(
                format!("{field}.{kind}"),
                "not supported: use static_layer",
            ))
        };
        match layer_specifier {
            Some(LayerSpecifier::StaticLayer(values)) => {
                Ok(Layer::new(name, &struct_to_json(values)))
            }
            // There is nothing in it before somebody modifies it, which is answered with an error.
            Some(LayerSpecifier::AdminLayer(_)) => Ok(Layer::new(name, &Default::default())),
            Some(LayerSpecifier::DiskLayer(_)) => refused("disk_layer"),
            Some(LayerSpecifier::RtdsLayer(_)) => refused("rtds_layer"),
            None => Err(problem(field, "has no layer, such as static_layer")),
        }
    });
    let runtime = Runtime::new(layers.collect::<Result<_, _>>()?);
    for key in runtime.entries().into_keys() {
        if OF_ENVOY.iter().any(|prefix| key.starts_with(prefix)) {
            tracing::warn!(key, "this runtime key of Envoy's has no effect");
        }
    }
    Ok(runtime)
}
