//! Messages as JSON and back: the bootstrap a proxy is started with, and the dumps it answers.
//!
//! The mapping is protobuf's own, with every [`Any`] opened and named by `@type`. Fields are
//! spelled as in the `.proto` files, like Envoy does it; both spellings are read. Keys are sorted, so equal
//! messages give equal text. Each conversion builds the descriptors it needs and drops them again; who
//! converts a lot holds on to [`descriptor_pool`] meanwhile.

mod known;
mod read;
mod scalar;

use std::panic::resume_unwind;

use prost::{DecodeError, Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, SerializeOptions,
};
use prost_types::Struct;
use serde_json::Value;

use crate::any::{Any, type_name};
use crate::rules::{self, Violation};
use crate::{descriptor_pool, table, tree, wkt};

/// Nesting, counted through every `Any`, below which an `Any` is not opened and nothing is read.
///
/// Each `Any` starts prost's own limit of 100 anew, so without this one, bytes could nest without end.
const MAX_DEPTH: usize = 100;

/// Why a message has no JSON, or some JSON is no message.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The message is none of this crate.
    #[error("unknown message {0}")]
    UnknownMessage(String),
    /// The encoded message is malformed.
    #[error("decoding {name}")]
    Decode {
        /// The full name of the message.
        name: String,
        /// What is wrong with the bytes.
        source: DecodeError,
    },
    /// There is no such field, or a value does not fit it.
    #[error("{name} as json: at {path}")]
    Field {
        /// The full name of the message.
        name: String,
        /// The message that it is in, from the top: `.` is the top itself.
        path: String,
        /// What is wrong there.
        source: serde_json::Error,
    },
    /// A value is not what Envoy's API wants it to be.
    #[error("{name} as json: {path} {reason}")]
    Rule {
        /// The full name of the message.
        name: String,
        /// Where the value is, from the top.
        path: String,
        /// What is asked of it.
        reason: String,
    },
    /// A value has no JSON.
    #[error("{name} as json")]
    Json {
        /// The full name of the message.
        name: String,
        /// Which value, and why.
        source: serde_json::Error,
    },
}

/// A message as JSON.
///
/// An `Any` whose type is unknown, or whose bytes are malformed, is shown as an object with its
/// `type_url`, its `length` in bytes, and the `reason`; so one bad resource never hides the others.
///
/// # Errors
///
/// When a duration or timestamp outside of any `Any` is out of protobuf's range.
pub fn to_json<T: Name>(message: &T) -> Result<Value, JsonError> {
    let (name, bytes) = (T::full_name(), message.encode_to_vec());
    aside(|| {
        let pool = descriptor_pool();
        let mut dynamic = decode(descriptor(&pool, &name)?, &bytes)?;
        open_anys(&mut dynamic, 0);
        let mut json = serialize(&dynamic)?;
        json.sort_all_objects();
        Ok(json)
    })
}

/// The message that some JSON stands for. Values of enumerations are read whatever their case, as Envoy reads them.
///
/// # Errors
///
/// When a field is unknown, a value does not fit its field, or the type of an `Any` is unknown.
pub fn from_json<T: Name + Default>(json: Value) -> Result<T, JsonError> {
    let name = T::full_name();
    decoded(name.clone(), read(&name, json)?)
}

/// The same where its values are what Envoy's API wants them to be.
///
/// # Errors
///
/// As with [`from_json`], and when a value breaks a rule, such as a name that is empty.
pub fn checked_from_json<T: Name + Default>(json: Value) -> Result<T, JsonError> {
    let name = T::full_name();
    let message = read(&name, json)?;
    match rules::check(&message) {
        Ok(()) => decoded(name, message),
        Err(Violation { path, reason }) => Err(JsonError::Rule { name, path, reason }),
    }
}

/// The message of this name. Of a large configuration each form takes megabytes, so the one is gone before the next but one is made.
fn read(name: &str, json: Value) -> Result<tree::Value, JsonError> {
    let message = table::message(name).ok_or_else(|| JsonError::UnknownMessage(name.to_owned()))?;
    read::message(message, &json).map_err(|refused| JsonError::Field {
        name: name.to_owned(),
        path: refused.path,
        source: refused.source,
    })
}

fn decoded<T: Message + Default>(name: String, message: tree::Value) -> Result<T, JsonError> {
    let bytes = message.encoded();
    drop(message);
    T::decode(bytes.as_slice()).map_err(|source| JsonError::Decode { name, source })
}

/// Does it on a thread of its own, or here if there can be none, and waits.
///
/// An allocator keeps some of what a thread has freed at hand for that thread. After the descriptors were
/// dropped, these pieces would lie scattered over their megabytes, and none of it could be given back.
fn aside<T: Send>(work: impl Fn() -> T + Sync) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("weft-json".into());
        match thread.spawn_scoped(scope, &work) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => work(),
        }
    })
}

fn descriptor(pool: &DescriptorPool, name: &str) -> Result<MessageDescriptor, JsonError> {
    pool.get_message_by_name(name)
        .ok_or_else(|| JsonError::UnknownMessage(name.to_owned()))
}

fn decode(descriptor: MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, JsonError> {
    let name = descriptor.full_name().to_owned();
    DynamicMessage::decode(descriptor, bytes).map_err(|source| JsonError::Decode { name, source })
}

fn serialize(message: &DynamicMessage) -> Result<Value, JsonError> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|source| JsonError::Json {
            name: message.descriptor().full_name().to_owned(),
            source,
        })
}

/// Replaces every `Any` below `message` that has no JSON by one which says so.
fn open_anys(message: &mut DynamicMessage, depth: usize) {
    let descriptor = message.descriptor();
    if descriptor.full_name() == Any::full_name() {
        open_any(message, depth);
        return;
    }
    if descriptor.package_name() == Any::PACKAGE {
        return;
    }
    for (_, value) in message.fields_mut() {
        match value {
            prost_reflect::Value::Message(inner) => open_anys(inner, depth + 1),
            prost_reflect::Value::List(values) => open_all(values.iter_mut(), depth),
            prost_reflect::Value::Map(values) => open_all(values.values_mut(), depth),
            _ => {}
        }
    }
}

fn open_all<'a>(values: impl Iterator<Item = &'a mut prost_reflect::Value>, depth: usize) {
    for value in values {
        if let prost_reflect::Value::Message(inner) = value {
            open_anys(inner, depth + 1);
        }
    }
}

fn open_any(message: &mut DynamicMessage, depth: usize) {
    let Ok(any) = message.transcode_to::<Any>() else {
        return;
    };
    let descriptor = message.descriptor();
    let opened = match opened(descriptor.parent_pool(), &any, depth) {
        Ok(opened) => opened,
        Err(reason) => closed(&any, &reason),
    };
    message.clear();
    // It was encoded a moment ago, so it decodes; else the Any would be shown as empty.
    let _ = message.transcode_from(&opened);
}

/// The same `Any`, after everything in it was found to have JSON.
fn opened(pool: &DescriptorPool, any: &Any, depth: usize) -> Result<Any, String> {
    if depth >= MAX_DEPTH {
        return Err("nested too deeply".into());
    }
    let name = type_name(&any.type_url);
    let descriptor = descriptor(pool, name).map_err(|error| error.to_string())?;
    let mut inner = decode(descriptor, &any.value).map_err(|error| error.to_string())?;
    open_anys(&mut inner, depth + 1);
    serialize(&inner).map_err(|error| error.to_string())?;
    Ok(Any {
        type_url: any.type_url.clone(),
        value: inner.encode_to_vec().into(),
    })
}

/// What is shown instead of an `Any` that has no JSON.
fn closed(any: &Any, reason: &str) -> Any {
    let fields = [
        ("type_url", Value::from(any.type_url.as_str())),
        ("length", Value::from(any.value.len())),
        ("reason", Value::from(reason)),
    ];
    let shown = Struct {
        fields: fields
            .map(|(key, value)| (key.to_owned(), wkt::value_from_json(&value)))
            .into(),
    };
    Any {
        type_url: "type.googleapis.com/google.protobuf.Struct".into(),
        value: shown.encode_to_vec().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::any::pack;
    use crate::envoy::admin::v3::ConfigDump;
    use crate::envoy::config::bootstrap::v3::Bootstrap;
    use crate::envoy::config::core::v3::TypedExtensionConfig;
    use crate::envoy::config::listener::v3::filter::ConfigType;
    use crate::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
    use bytes::Bytes;
    use serde_json::json;

    fn bootstrap() -> Value {
        json!({
            "node": {"id": "a", "cluster": "b", "metadata": {"labels": {"app": "reviews"}}},
            "static_resources": {
                "listeners": [{
                    "name": "inbound",
                    "address": {"socket_address": {"address": "::1", "port_value": 15006}},
                    "filter_chains": [{
                        "filters": [{
                            "name": "tcp",
                            "typed_config": {
                                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                                "stat_prefix": "tcp",
                                "cluster": "reviews",
                                "idle_timeout": "3.500s",
                                "max_connect_attempts": 2
                            }
                        }]
                    }]
                }]
            }
        })
    }

    #[test]
    fn a_bootstrap_is_read_and_its_anys_are_encoded() {
        let bootstrap: Bootstrap = from_json(bootstrap()).unwrap();

        let listener = &bootstrap.static_resources.unwrap().listeners[0];
        let filter = listener.filter_chains[0].filters[0].clone();
        let Some(ConfigType::TypedConfig(any)) = filter.config_type else {
            panic!("no typed config");
        };
        let tcp: TcpProxy = crate::any::unpack(&any).unwrap();
        assert_eq!(tcp.max_connect_attempts, Some(2));
        assert_eq!(tcp.idle_timeout.unwrap().nanos, 500_000_000);
    }

    #[test]
    fn what_is_read_is_written_the_same() {
        let message: Bootstrap = from_json(bootstrap()).unwrap();

        assert_eq!(to_json(&message).unwrap(), bootstrap());
    }

    #[test]
    fn camel_case_is_read_too() {
        let message: Bootstrap =
            from_json(json!({"staticResources": {"clusters": [{"altStatName": "x"}]}})).unwrap();

        assert_eq!(
            message.static_resources.unwrap().clusters[0].alt_stat_name,
            "x"
        );
    }

    #[test]
    fn an_unknown_field_is_refused_by_name_and_place() {
        let listener = json!({"name": "web", "adress": {}});
        let bootstrap = json!({"static_resources": {"listeners": [listener]}});

        let error = from_json::<Bootstrap>(bootstrap).unwrap_err();

        let JsonError::Field { path, source, .. } = error else {
            panic!("another error: {error}");
        };
        assert!(source.to_string().contains("adress"), "{source}");
        assert_eq!(path, "static_resources.listeners[0]");
    }

    #[test]
    fn an_any_of_unknown_type_does_not_hide_the_others() {
        let known = pack(&TcpProxy::default());
        let unknown = Any {
            type_url: "type.googleapis.com/foreign.Type".into(),
            value: Bytes::from_static(b"abc"),
        };
        let dump = ConfigDump {
            configs: vec![unknown, known.clone()],
        };

        let json = to_json(&dump).unwrap();

        assert_eq!(
            json["configs"][0]["value"]["type_url"],
            "type.googleapis.com/foreign.Type"
        );
        assert_eq!(json["configs"][0]["value"]["length"], 3.0);
        assert_eq!(json["configs"][1]["@type"], known.type_url);
    }

    #[test]
    fn an_any_with_malformed_bytes_says_so() {
        let mut malformed = pack(&TcpProxy::default());
        malformed.value = Bytes::from_static(b"\x0a\xff");

        let json = to_json(&malformed).unwrap();

        assert!(
            json["value"]["reason"]
                .as_str()
                .unwrap()
                .contains("TcpProxy")
        );
    }

    #[test]
    fn a_duration_out_of_range_closes_only_its_any() {
        for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, i32::MIN), (1, i32::MAX)] {
            let dump = ConfigDump {
                configs: vec![pack(&TcpProxy {
                    idle_timeout: Some(prost_types::Duration { seconds, nanos }),
                    ..TcpProxy::default()
                })],
            };

            let json = to_json(&dump).unwrap();

            assert!(json["configs"][0]["value"]["reason"].is_string(), "{json}");
        }
    }

    #[test]
    fn no_damage_to_an_any_makes_it_panic() {
        let _held = descriptor_pool();
        let any = pack(&from_json::<Bootstrap>(bootstrap()).unwrap());
        for position in 0..any.value.len() {
            for flipped in [0x01, 0x08, 0x80, 0xff] {
                let mut damaged = any.value.to_vec();
                damaged[position] ^= flipped;
                let _ = to_json(&Any {
                    type_url: any.type_url.clone(),
                    value: damaged.into(),
                });
            }
        }
    }

    #[test]
    fn anys_inside_anys_end_at_a_limit() {
        let mut any = pack(&TypedExtensionConfig::default());
        for _ in 0..10_000 {
            any = pack(&TypedExtensionConfig {
                name: String::new(),
                typed_config: Some(any),
            });
        }

        let json = to_json(&any).unwrap().to_string();

        assert!(json.contains("nested too deeply"));
    }

    #[test]
    fn equal_messages_give_equal_text() {
        let message: Bootstrap = from_json(json!({
            "node": {"metadata": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}}
        }))
        .unwrap();

        let first = to_json(&message).unwrap().to_string();

        for _ in 0..20 {
            assert_eq!(to_json(&message).unwrap().to_string(), first);
        }
    }
}
