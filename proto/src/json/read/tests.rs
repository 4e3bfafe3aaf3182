use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, SerializeOptions,
    Value as Dynamic,
};
use serde_json::{Value, json};

use crate::any::{pack, unpack};
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use crate::json::{JsonError, from_json};
use crate::{Any, descriptor_pool, json, table};

/// How deep messages of the test are filled.
const DEPTH: usize = 3;

/// A message with something in each field, and of each `oneof` in the member that is `turn`.
fn filled(of: &MessageDescriptor, turn: usize, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    if of.full_name() == "google.protobuf.Any" {
        let any = pack(&TcpProxy {
            stat_prefix: "a".into(),
            ..TcpProxy::default()
        });
        message.transcode_from::<Any>(&any).unwrap();
        return message;
    }
    for field in of.fields() {
        let is_in_turn = field.containing_oneof().is_none_or(|choice| {
            let members: Vec<_> = choice.fields().collect();
            members[turn % members.len()] == field
        });
        if is_in_turn && let Some(value) = filled_field(&field, turn, depth) {
            message.set_field(&field, value);
        }
    }
    message
}

fn filled_field(field: &FieldDescriptor, turn: usize, depth: usize) -> Option<Dynamic> {
    if field.is_map() {
        let entry = field.kind().as_message().unwrap().clone();
        let value = filled_value(&entry.map_entry_value_field().kind(), turn, depth)?;
        let key = |key: &str| MapKey::String(key.to_owned());
        return Some(Dynamic::Map(
            [(key("b.c/d"), value.clone()), (key("a"), value)].into(),
        ));
    }
    let value = filled_value(&field.kind(), turn, depth)?;
    Some(match field.is_list() {
        true => Dynamic::List(vec![value.clone(), value]),
        false => value,
    })
}

fn filled_value(kind: &Kind, turn: usize, depth: usize) -> Option<Dynamic> {
    Some(match kind {
        Kind::Double => Dynamic::F64(-2.75),
        Kind::Float => Dynamic::F32(1.5),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Dynamic::I32(7 - 8 * turn as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Dynamic::I64(1 << (30 + turn)),
        Kind::Uint32 | Kind::Fixed32 => Dynamic::U32(u32::MAX - turn as u32),
        Kind::Uint64 | Kind::Fixed64 => Dynamic::U64(u64::MAX >> turn),
        Kind::Bool => Dynamic::Bool(true),
        Kind::String => Dynamic::String("a \"ü\"".into()),
        Kind::Bytes => Dynamic::Bytes(vec![0, 251, 255, 9].into()),
        Kind::Enum(values) => Dynamic::EnumNumber(values.values().last().unwrap().number()),
        Kind::Message(_) if depth == 0 => return None,
        // One that says nothing has no JSON.
        Kind::Message(value) if value.full_name() == "google.protobuf.Value" && depth < 2 => {
            return None;
        }
        Kind::Message(inner) => Dynamic::Message(filled(inner, turn, depth - 1)),
    })
}

#[test]
fn every_field_of_every_message_is_read_as_reflection_reads_it() {
    let pool = descriptor_pool();
    let mut fields = 0;
    for of in pool.all_messages() {
        if of.is_map_entry() || of.package_name() == "google.protobuf" {
            continue;
        }
        for turn in 0..7 {
            let message = filled(&of, turn, DEPTH);
            for as_declared in [true, false] {
                let options = SerializeOptions::new().use_proto_field_name(as_declared);
                let serializer = serde_json::value::Serializer;
                let json = message
                    .serialize_with_options(serializer, &options)
                    .unwrap();

                let tree = super::message(table::message(of.full_name()).unwrap(), &json);

                let tree = tree.unwrap_or_else(|refused| {
                    panic!("{}: {}: {}", of.full_name(), refused.path, refused.source)
                });
                let read = DynamicMessage::decode(of.clone(), tree.encoded().as_slice()).unwrap();
                let reflected = DynamicMessage::deserialize(of.clone(), &json).unwrap();
                assert!(read == reflected, "{} from {json}", of.full_name());
            }
            fields += message.fields().count();
        }
    }
    assert!(fields > 5_000, "{fields}");
}

/// Where a bootstrap is wrong, and why.
fn refused(json: Value) -> (String, String) {
    match from_json::<Bootstrap>(json) {
        Err(JsonError::Field { path, source, .. }) => (path, source.to_string()),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_place_and_what_fits() {
    let cluster = |cluster: Value| refused(json!({"static_resources": {"clusters": [cluster]}}));
    let place = |field: &str| format!("static_resources.clusters[0].{field}");

    for (field, value, reason) in [
        (
            "connect_timeout",
            json!(5),
            "invalid type: integer `5`, expected a duration string",
        ),
        (
            "connect_timeout",
            json!("315576000001s"),
            "duration out of range",
        ),
        (
            "name",
            json!(["a"]),
            "invalid type: sequence, expected a string",
        ),
        ("lb_policy", json!("FAIR"), "unrecognized enum value 'FAIR'"),
        (
            "lb_policy",
            json!(1.5),
            "invalid type: floating point `1.5`, expected a string or integer",
        ),
        (
            "per_connection_buffer_limit_bytes",
            json!(-1),
            "out of range integral type conversion attempted",
        ),
        (
            "per_connection_buffer_limit_bytes",
            json!(0.5),
            "expected integer value",
        ),
        (
            "per_connection_buffer_limit_bytes",
            json!(1e300),
            "float value out of range",
        ),
        (
            "per_connection_buffer_limit_bytes",
            json!("x"),
            "invalid digit found in string",
        ),
        (
            "health_checks",
            json!({}),
            "invalid type: map, expected a list",
        ),
        (
            "load_assignment",
            json!("x"),
            "invalid type: string \"x\", expected a map",
        ),
        (
            "typed_extension_protocol_options",
            json!([]),
            "invalid type: sequence, expected a map",
        ),
    ] {
        let found = cluster(json!({field: value}));
        assert_eq!(found, (place(field), reason.to_owned()));
    }
    let both = json!({"type": "STATIC", "cluster_type": {"name": "a"}});
    let (path, reason) = cluster(both);
    assert_eq!(path, "static_resources.clusters[0]");
    assert!(
        reason.contains("oneof 'cluster_discovery_type'"),
        "{reason}"
    );
    assert_eq!(refused(json!([])).0, ".");
}

#[test]
fn an_any_is_refused_where_its_type_is_not_told_or_not_known() {
    let any = |any: Value| {
        let options = json!({"a.b": any});
        let clusters = json!([{"typed_extension_protocol_options": options}]);
        refused(json!({"static_resources": {"clusters": clusters}})).1
    };

    assert_eq!(any(json!({})), "expected '@type' field");
    assert!(any(json!({"@type": "a.B"})).contains("missing at least one '/'"));
    assert_eq!(any(json!({"@type": "x/a.B"})), "'a.B' is not supported");
    let duration = |rest: Value| {
        let mut json = json!({"@type": "type.googleapis.com/google.protobuf.Duration"});
        let fields = json.as_object_mut().unwrap();
        fields.extend(rest.as_object().unwrap().clone());
        any(json)
    };
    assert_eq!(duration(json!({})), "expected 'value' field");
    assert!(duration(json!({"value": "1s", "more": 1})).contains("no field 'more'"));
}

#[test]
fn numbers_are_read_in_each_spelling() {
    let limit = |value: Value| {
        let json = json!({"per_connection_buffer_limit_bytes": value});
        let cluster: Cluster = from_json(json).unwrap();
        cluster.per_connection_buffer_limit_bytes
    };

    assert_eq!(limit(json!(7)), Some(7));
    assert_eq!(limit(json!("7")), Some(7));
    assert_eq!(limit(json!(7.0)), Some(7));
    assert_eq!(limit(json!(0)), Some(0));
    assert_eq!(limit(json!(null)), None);
}

#[test]
fn what_has_a_form_of_its_own_may_be_the_top() {
    let any: Any = from_json(json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a",
    }))
    .unwrap();
    assert_eq!(unpack::<Cluster>(&any).unwrap().name, "a");

    let text: String = from_json(json!("a")).unwrap();
    assert_eq!(text, "a");
}

#[test]
fn json_without_end_is_refused() {
    let mut json = json!({});
    for _ in 0..200 {
        json = json!({"not_rule": json});
    }
    let permission = "envoy.config.rbac.v3.Permission";

    let refused = super::message(table::message(permission).unwrap(), &json);

    let Err(refused) = refused else {
        panic!("it was read");
    };
    assert_eq!(refused.source.to_string(), "nested too deeply");
}

#[test]
fn what_is_written_is_read_as_what_it_was() {
    let cluster = json!({"name": "a", "metadata": {"filter_metadata": {"x": {"y": [1.5, null, {"z": true}]}}}});

    let read: Cluster = from_json(cluster.clone()).unwrap();

    assert_eq!(json::to_json(&read).unwrap(), cluster);
}

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
