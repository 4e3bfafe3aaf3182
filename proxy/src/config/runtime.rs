//! Runtime values: what a configuration leaves to be said elsewhere, by keys, in layers of which the last one wins.
//!
//! Read when a configuration is translated: a key that no layer has leaves the default that stands beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::percent::Percent;

/// All layers, the last one first to be believed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    layers: Vec<Layer>,
}

/// Values by their keys, in which dots stand between the names of what holds them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layer {
    /// What it is called.
    pub name: String,
    /// Where its values come from.
    pub source: LayerSource,
    entries: BTreeMap<String, Value>,
}

/// Where the values of a layer come from.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum LayerSource {
    /// They are written in it.
    #[default]
    Given,
    /// From whoever uses the admin interface.
    Admin,
    /// From RTDS, under this name.
    Discovered(Arc<str>),
}

/// Nobody has said that values may be modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no admin layer specified")]
pub struct NoAdminLayer;

impl Layer {
    /// Values as they are written: an object within an object is a part of the key, unless it is a fraction.
    pub fn new(name: &str, values: &Map<String, Value>) -> Self {
        let mut layer = Layer {
            name: name.to_owned(),
            ..Layer::default()
        };
        layer.add("", values);
        layer
    }

    /// One whose values come later.
    pub fn empty(name: &str, source: LayerSource) -> Self {
        Layer {
            name: name.to_owned(),
            source,
            entries: BTreeMap::new(),
        }
    }

    /// Its values.
    pub fn entries(&self) -> &BTreeMap<String, Value> {
        &self.entries
    }

    fn add(&mut self, prefix: &str, values: &Map<String, Value>) {
        for (name, value) in values {
            let key = format!("{prefix}{name}");
            match value {
                Value::Object(inner) if !inner.contains_key("numerator") => {
                    self.add(&format!("{key}."), inner);
                }
                _ => {
                    self.entries.insert(key, value.clone());
                }
            }
        }
    }
}

impl Runtime {
    /// These layers, each over those before it.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self { layers }
    }

    /// The layers, each over those before it.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Every key that a layer has, with its value in each layer that has it.
    pub fn entries(&self) -> BTreeMap<&str, Vec<Option<&Value>>> {
        let keys = self.layers.iter().flat_map(|layer| layer.entries.keys());
        let of = |key: &str| {
            self.layers
                .iter()
                .map(|layer| layer.entries.get(key))
                .collect()
        };
        keys.map(|key| (key.as_str(), of(key))).collect()
    }

    /// Names of the layers that are discovered.
    pub fn discovered(&self) -> impl Iterator<Item = &Arc<str>> {
        self.layers.iter().filter_map(|layer| match &layer.source {
            LayerSource::Discovered(name) => Some(name),
            LayerSource::Given | LayerSource::Admin => None,
        })
    }

    /// Replaces the values of layers that are discovered under a name.
    pub fn set_discovered(&mut self, name: &Arc<str>, values: &BTreeMap<String, Value>) {
        let source = LayerSource::Discovered(Arc::clone(name));
        for layer in &mut self.layers {
            if layer.source == source {
                layer.entries.clone_from(values);
            }
        }
    }

    /// Whether values may be modified by whoever uses the admin interface.
    pub fn is_modifiable(&self) -> bool {
        let mut layers = self.layers.iter();
        layers.any(|layer| layer.source == LayerSource::Admin)
    }

    /// Sets keys in the admin layer; an empty text takes a key out.
    ///
    /// # Errors
    /// There is no such layer.
    pub fn modify<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), NoAdminLayer> {
        let mut layers = self.layers.iter_mut();
        let admin = layers.find(|layer| layer.source == LayerSource::Admin);
        let entries = &mut admin.ok_or(NoAdminLayer)?.entries;
        for (key, text) in values {
            match text.is_empty() {
                true => entries.remove(key),
                false => entries.insert(key.to_owned(), Value::String(text.to_owned())),
            };
        }
        Ok(())
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let mut layers = self.layers.iter().rev();
        layers.find_map(|layer| layer.entries.get(key))
    }

    /// A switch; none where the key is not there, or has no `true` or `false`.
    pub fn switch(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(value) => Some(*value),
            Value::String(text) => text.to_ascii_lowercase().parse().ok(),
            _ => None,
        }
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.value(key)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }

    /// A count; none where it has a fraction or is too large.
    pub fn count(&self, key: &str) -> Option<u32> {
        count(self.number(key)?)
    }

    /// A share: a fraction, or whole percents.
    pub fn share(&self, key: &str) -> Option<Percent> {
        let Value::Object(fraction) = self.value(key)? else {
            return self.count(key).map(Percent::of);
        };
        let numerator = count(fraction.get("numerator")?.as_f64()?)?;
        let scale = match fraction.get("denominator").and_then(Value::as_str) {
            None | Some("HUNDRED") => 10_000,
            Some("TEN_THOUSAND") => 100,
            Some("MILLION") => 1,
            Some(_) => return None,
        };
        // As Envoy: more than all is all.
        Percent::from_millionths(numerator.saturating_mul(scale)).or(Some(Percent::ALL))
    }
}

fn count(number: f64) -> Option<u32> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked before"
    )]
    (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number))
        .then_some(number as u32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn runtime(layers: &[Value]) -> Runtime {
        let layer = |value: &Value| Layer::new("layer", value.as_object().expect("an object"));
        Runtime::new(layers.iter().map(layer).collect())
    }

    #[test]
    fn the_last_layer_that_has_a_key_wins() {
        let runtime = runtime(&[
            json!({"routing": {"canary": 5, "dark": 1}}),
            json!({"routing.canary": 50}),
        ]);

        assert_eq!(runtime.share("routing.canary"), Some(Percent::of(50)));
        assert_eq!(runtime.share("routing.dark"), Some(Percent::of(1)));
        assert_eq!(runtime.share("routing"), None);
    }

    #[test]
    fn a_value_is_what_its_key_is_read_as() {
        let runtime = runtime(&[json!({
            "fraction": {"numerator": 25, "denominator": "TEN_THOUSAND"},
            "too_much": {"numerator": 300, "denominator": "HUNDRED"},
            "switch": false,
            "text": "true",
            "number": 1.5,
            "negative": -1,
        })]);

        assert_eq!(runtime.share("fraction"), Percent::from_millionths(2_500));
        assert_eq!(runtime.share("too_much"), Some(Percent::ALL));
        assert_eq!(runtime.switch("switch"), Some(false));
        assert_eq!(runtime.switch("text"), Some(true));
        assert_eq!(runtime.number("number"), Some(1.5));
        assert_eq!(runtime.count("number"), None);
        assert_eq!(runtime.count("negative"), None);
        assert_eq!(runtime.switch("number"), None);
    }

    #[test]
    fn only_an_admin_layer_is_modified_and_an_empty_text_takes_a_key_out() {
        let mut fixed = runtime(&[json!({"share": 1})]);
        assert_eq!(fixed.modify([("share", "2")]), Err(NoAdminLayer));

        let mut layers = fixed.layers().to_vec();
        layers.push(Layer::empty("admin", LayerSource::Admin));
        let mut open = Runtime::new(layers);
        open.modify([("share", "30"), ("new", "true")])
            .expect("an admin layer");
        assert_eq!(
            (open.count("share"), open.switch("new")),
            (Some(30), Some(true))
        );
        open.modify([("share", ""), ("never there", "")])
            .expect("an admin layer");
        assert_eq!(
            (open.count("share"), open.switch("new")),
            (Some(1), Some(true))
        );
    }

    #[test]
    fn what_is_discovered_is_replaced_as_a_whole_in_layers_of_its_name() {
        let source = |name: &str| LayerSource::Discovered(name.into());
        let mut runtime = Runtime::new(vec![
            Layer::empty("first", source("site")),
            Layer::empty("second", source("other")),
        ]);
        let names: Vec<_> = runtime.discovered().map(ToString::to_string).collect();
        assert_eq!(names, ["site", "other"]);

        let entries = |values: Value| {
            let layer = Layer::new("site", values.as_object().expect("an object"));
            layer.entries().clone()
        };
        runtime.set_discovered(&"site".into(), &entries(json!({"a": {"b": 1}, "c": 2})));
        assert_eq!(
            (runtime.count("a.b"), runtime.count("c")),
            (Some(1), Some(2))
        );
        runtime.set_discovered(&"site".into(), &entries(json!({"c": 3})));
        assert_eq!((runtime.count("a.b"), runtime.count("c")), (None, Some(3)));
    }
}
