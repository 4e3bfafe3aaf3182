//! A bootstrap's `layered_runtime`.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_proto::envoy::config::bootstrap::v3::runtime_layer::{LayerSpecifier, RtdsLayer};
use weft_proto::envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer};
use weft_proto::wkt::struct_to_json;

use super::{Problem, problem, warn_of, within};
use crate::config::runtime::{Layer, LayerSource, Runtime};
use crate::xds::kind::Kind;
use crate::xds::origin::{Needed, Origins};
use crate::xds::statics::Statics;
use crate::xds::translate::control_plane::source;

/// Keys that only Envoy's own code reads.
const OF_ENVOY: [&str; 3] = ["envoy.", "re2.", "overload."];

/// All layers. Those of a disk are refused.
pub(super) fn runtime(wire: &LayeredRuntime) -> Result<Runtime, Problem> {
    let LayeredRuntime { layers: all } = wire;
    let layers = all.iter().enumerate().map(|(index, wire)| {
        let RuntimeLayer {
            name,
            layer_specifier,
        } = wire;
        let field = format!("layered_runtime.layers[{index}]");
        if name.is_empty() {
            return Err(problem(format!("{field}.name"), "must not be empty"));
        }
        if all[..index].iter().any(|before| before.name == *name) {
            let reason = format!("{name:?} is the name of a layer before it");
            return Err(problem(format!("{field}.name"), reason));
        }
        match layer_specifier {
            Some(LayerSpecifier::StaticLayer(values)) => {
                Ok(Layer::new(name, &struct_to_json(values)))
            }
            // There is nothing in it before somebody modifies it.
            Some(LayerSpecifier::AdminLayer(_)) => Ok(Layer::empty(name, LayerSource::Admin)),
            Some(LayerSpecifier::RtdsLayer(wire)) => {
                let source = LayerSource::Discovered(wire.name.as_str().into());
                Ok(Layer::empty(name, source))
            }
            Some(LayerSpecifier::DiskLayer(_)) => Err(problem(
                format!("{field}.disk_layer"),
                "not supported: use static_layer or rtds_layer",
            )),
            None => Err(problem(field, "has no layer, such as static_layer")),
        }
    });
    let layers: Vec<_> = layers.collect::<Result<_, _>>()?;
    let is_admin = |layer: &&Layer| layer.source == LayerSource::Admin;
    if layers.iter().filter(is_admin).count() > 1 {
        return Err(problem(
            "layered_runtime.layers",
            "too many admin layers specified, at most one may be",
        ));
    }
    let runtime = Runtime::new(layers);
    for key in runtime.entries().into_keys() {
        let is_of_envoy = OF_ENVOY.iter().any(|prefix| key.starts_with(prefix));
        if is_of_envoy && !is_limit_of_listener(key) {
            tracing::warn!(key, "this runtime key of Envoy's has no effect");
        }
    }
    Ok(runtime)
}

/// Such a key is read where its listener is translated.
fn is_limit_of_listener(key: &str) -> bool {
    let rest = key.strip_prefix("envoy.resource_limits.listener.");
    rest.is_some_and(|rest| rest.ends_with(".connection_limit"))
}

/// Takes down from where layers are discovered, and that they are waited for.
pub(super) fn add_discovered(
    wire: &LayeredRuntime,
    origins: &Origins,
    statics: &mut Statics,
    awaited: &mut BTreeMap<Kind, Option<Duration>>,
) -> Result<(), Problem> {
    for (index, layer) in wire.layers.iter().enumerate() {
        let Some(LayerSpecifier::RtdsLayer(RtdsLayer { name, rtds_config })) =
            &layer.layer_specifier
        else {
            continue;
        };
        let field = format!("layered_runtime.layers[{index}].rtds_layer");
        if name.is_empty() {
            return Err(problem(format!("{field}.name"), "must not be empty"));
        }
        let field = format!("{field}.rtds_config");
        let config = rtds_config.as_ref();
        let config = config.ok_or_else(|| problem(&field, "missing"))?;
        let ((source, limit), notes) =
            source(config).map_err(|invalid| within(&field, &invalid))?;
        warn_of(&field, notes);
        let origin = origins.origin(Kind::Runtime, name, "", source);
        let origin = origin.map_err(|invalid| within(&field, &invalid))?;
        statics.add_layer(Needed {
            kind: Kind::Runtime,
            name: name.as_str().into(),
            origin,
            limit,
        });
        awaited.insert(Kind::Runtime, limit);
    }
    Ok(())
}
