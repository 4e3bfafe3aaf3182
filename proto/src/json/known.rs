//! JSON as the messages of `google.protobuf` that have a form of their own there.

use prost::Message as _;
use prost_types::{Duration, ListValue, Timestamp};
use serde::de::Error as _;
use serde_json::{Error, Value as Json};

use super::read::mismatch;
use super::scalar;
use crate::table::Type;
use crate::tree::Value;
use crate::wkt;

/// The longest duration that protobuf allows, in seconds.
const LONGEST: u64 = 315_576_000_000;
/// The first and the last second of the years that a timestamp may be in: 1 to 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// The message of this full name.
pub(super) fn read(name: &str, json: &Json) -> Result<Value, Error> {
    let short = name.strip_prefix("google.protobuf.").unwrap_or(name);
    if let Some(inner) = wrapped(short) {
        return Ok(Value::Wrapped(inner, Box::new(scalar::read(inner, json)?)));
    }
    let bytes = match (short, json) {
        ("Duration", json) => return duration(json).map(Value::Duration),
        ("Timestamp", json) => timestamp(json)?.encode_to_vec(),
        ("Value", json) => wkt::value_from_json(json).encode_to_vec(),
        ("Struct", Json::Object(fields)) => wkt::struct_from_json(fields).encode_to_vec(),
        ("ListValue", Json::Array(values)) => {
            let values = values.iter().map(wkt::value_from_json).collect();
            ListValue { values }.encode_to_vec()
        }
        ("Empty", Json::Object(fields)) if fields.is_empty() => Vec::new(),
        ("Empty", Json::Object(_)) => return Err(Error::custom("unexpected value in map")),
        ("Empty", other) => return Err(mismatch(other, "an empty map")),
        ("Struct", other) => return Err(mismatch(other, "a map")),
        ("ListValue", other) => return Err(mismatch(other, "a list")),
        _ => return Err(Error::custom(format!("'{name}' is not supported"))),
    };
    Ok(Value::WellKnown(bytes))
}

/// What a wrapper is around.
fn wrapped(short: &str) -> Option<Type> {
    Some(match short {
        "DoubleValue" => Type::Double,
        "FloatValue" => Type::Float,
        "Int32Value" => Type::Int32,
        "Int64Value" => Type::Int64,
        "UInt32Value" => Type::Uint32,
        "UInt64Value" => Type::Uint64,
        "BoolValue" => Type::Bool,
        "StringValue" => Type::String,
        "BytesValue" => Type::Bytes,
        _ => return None,
    })
}

fn duration(json: &Json) -> Result<Duration, Error> {
    let text = scalar::text(json, "a duration string")?;
    let duration: Duration = text.parse().map_err(Error::custom)?;
    if duration.seconds.unsigned_abs() > LONGEST || duration.nanos.unsigned_abs() > 999_999_999 {
        return Err(Error::custom("duration out of range"));
    }
    Ok(duration)
}

fn timestamp(json: &Json) -> Result<Timestamp, Error> {
    let text = scalar::text(json, "a rfc3339 timestamp string")?;
    let timestamp: Timestamp = text.parse().map_err(Error::custom)?;
    if !(FIRST..=LAST).contains(&timestamp.seconds) {
        return Err(Error::custom("timestamp out of range"));
    }
    Ok(timestamp)
}
