//! `/runtime` and `/runtime_modify`: what runtime keys stand for, in each layer.

use http::StatusCode;
use serde_json::{Value, json};

use super::reply::{Query, Reply};
use crate::config::runtime::{NoAdminLayer, Runtime};
use crate::xds::state::State;

/// All keys, with their values in each layer and the one that holds.
pub fn runtime(runtime: &Runtime) -> Reply {
    let names: Vec<_> = runtime.layers().iter().map(|layer| &layer.name).collect();
    let entries = runtime.entries().into_iter().map(|(key, values)| {
        let values: Vec<_> = values.into_iter().map(shown).collect();
        let last = values.iter().rfind(|value| !value.is_empty());
        let entry = json!({"layer_values": values, "final_value": last});
        (key.to_owned(), entry)
    });
    let entries: serde_json::Map<_, _> = entries.collect();
    Reply::json(&json!({"layers": names, "entries": entries}))
}

/// Sets keys in the admin layer, and reads again what depends on them.
pub fn modify(configuration: Option<&State>, query: &Query) -> Reply {
    if query.is_empty() {
        return Reply::text(
            StatusCode::BAD_REQUEST,
            "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n\
             use an empty value to remove a previously added override\n",
        );
    }
    // A configuration that cannot change has no admin layer.
    let modified = match configuration {
        Some(configuration) => configuration.modify_runtime(query.pairs()),
        None => Err(NoAdminLayer),
    };
    match modified {
        Ok(()) => Reply::ok("OK\n"),
        Err(NoAdminLayer) => Reply::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "No admin layer specified: add one to layered_runtime of the bootstrap\n",
        ),
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::runtime::Layer;

    #[test]
    fn a_key_is_shown_with_its_value_in_each_layer() {
        let layer = |name, values: Value| Layer::new(name, values.as_object().expect("an object"));
        let told = Runtime::new(vec![
            layer("base", json!({"share": 1, "dark": {"on": true}})),
            layer("site", json!({"share": 30})),
        ]);

        let shown: Value = serde_json::from_slice(runtime(&told).body()).expect("JSON");

        assert_eq!(
            shown,
            json!({
                "layers": ["base", "site"],
                "entries": {
                    "share": {"layer_values": ["1", "30"], "final_value": "30"},
                    "dark.on": {"layer_values": ["true", ""], "final_value": "true"},
                },
            })
        );
    }
}
