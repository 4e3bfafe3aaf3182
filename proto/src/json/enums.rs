//! Values that Envoy reads in more than one spelling: those of enumerations in whatever case, `auto` for `AUTO`, and booleans
//! as texts.

use prost_reflect::{DescriptorPool, EnumDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::MAX_DEPTH;

/// Spells the values of all enumerations and booleans below `json` as they are declared. What is no value stays, and is an
/// error for whoever reads it.
pub(super) fn spell_as_declared(
    pool: &DescriptorPool,
    message: &MessageDescriptor,
    json: &mut Value,
    depth: usize,
) {
    let Value::Object(fields) = json else {
        return;
    };
    if depth == MAX_DEPTH {
        return;
    }
    // An `Any` has the fields of the message that it holds.
    let held = held(pool, fields);
    let message = held.as_ref().unwrap_or(message);
    for (name, value) in fields {
        let field = message
            .get_field_by_json_name(name)
            .or_else(|| message.get_field_by_name(name));
        let Some(field) = field else { continue };
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        let spell = |value: &mut Value| match &kind {
            Kind::Enum(declared) => spell_value(declared, value),
            Kind::Bool => spell_boolean(value),
            Kind::Message(wrapper) if wrapper.full_name() == "google.protobuf.BoolValue" => {
                spell_boolean(value);
            }
            Kind::Message(message) => spell_as_declared(pool, message, value, depth + 1),
            _ => {}
        };
        match value {
            Value::Array(values) => values.iter_mut().for_each(spell),
            Value::Object(values) if field.is_map() => values.values_mut().for_each(spell),
            value => spell(value),
        }
    }
}

fn held(pool: &DescriptorPool, fields: &Map<String, Value>) -> Option<MessageDescriptor> {
    let url = fields.get("@type")?.as_str()?;
    pool.get_message_by_name(url.rsplit('/').next()?)
}

fn spell_value(declared: &EnumDescriptor, value: &mut Value) {
    let Value::String(text) = value else {
        return;
    };
    if declared.get_value_by_name(text).is_some() {
        return;
    }
    let mut values = declared.values();
    if let Some(value) = values.find(|value| value.name().eq_ignore_ascii_case(text)) {
        *text = value.name().to_owned();
    }
}

fn spell_boolean(value: &mut Value) {
    match value.as_str() {
        Some("true") => *value = true.into(),
        Some("false") => *value = false.into(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::envoy::config::cluster::v3::Cluster;
    use crate::json::from_json;

    #[test]
    fn values_are_read_in_any_case_and_others_are_refused() {
        let cluster = |policy: &str| {
            from_json::<Cluster>(json!({"name": "a", "type": "strict_dns", "lb_policy": policy}))
        };

        assert_eq!(
            cluster("Ring_Hash").expect("valid"),
            cluster("RING_HASH").expect("valid")
        );
        let refused = cluster("fair").expect_err("refused").to_string();
        assert!(refused.contains("lb_policy"), "{refused}");
    }

    #[test]
    fn booleans_may_be_texts() {
        use crate::envoy::config::listener::v3::Listener;
        let listener = |value: serde_json::Value| {
            from_json::<Listener>(json!({"name": "a", "transparent": value, "bind_to_port": value}))
        };

        assert_eq!(
            listener("true".into()).expect("valid"),
            listener(true.into()).expect("valid")
        );
        assert!(listener("yes".into()).is_err());
    }

    #[test]
    fn values_within_any_are_read_in_any_case() {
        let cluster = |codec: &str| {
            let options = json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "codec_type": codec,
            });
            from_json::<Cluster>(
                json!({"name": "a", "typed_extension_protocol_options": {"x": options}}),
            )
        };

        assert_eq!(
            cluster("auto").expect("valid"),
            cluster("AUTO").expect("valid")
        );
        assert!(cluster("none").is_err());
    }
}
