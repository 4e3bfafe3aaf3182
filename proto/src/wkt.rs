//! Well-known types and their counterparts in Rust: durations, and structs as JSON.

use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Number, Value};

/// The longest duration that protobuf allows: about 10,000 years.
const LONGEST: Duration = Duration::from_secs(315_576_000_000);

/// A duration on the wire that is none here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}s and {}ns is negative or out of range", .0.seconds, .0.nanos)]
pub struct InvalidDuration(prost_types::Duration);

/// A duration for the wire; longer ones than protobuf allows become the longest.
pub fn to_wire(duration: Duration) -> prost_types::Duration {
    let duration = duration.min(LONGEST);
    prost_types::Duration {
        seconds: duration.as_secs().cast_signed(),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

/// A duration from the wire, refused when it is negative or not one that protobuf allows.
// The conversion in prost-types panics in debug builds when the nanoseconds are `i32::MIN`.
pub fn from_wire(duration: &prost_types::Duration) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(*duration);
    let seconds = u64::try_from(duration.seconds).map_err(|_| invalid())?;
    let nanos = u32::try_from(duration.nanos).map_err(|_| invalid())?;
    if seconds > LONGEST.as_secs() || nanos >= 1_000_000_000 {
        return Err(invalid());
    }
    Ok(Duration::new(seconds, nanos))
}

/// The JSON object that a struct stands for.
///
/// Numbers which JSON cannot say (infinities, NaN) become null.
pub fn struct_to_json(fields: &Struct) -> Map<String, Value> {
    fields
        .fields
        .iter()
        .map(|(key, value)| (key.clone(), value_to_json(value)))
        .collect()
}

/// The struct that stands for a JSON object.
pub fn struct_from_json(object: &Map<String, Value>) -> Struct {
    Struct {
        fields: object
            .iter()
            .map(|(key, value)| (key.clone(), value_from_json(value)))
            .collect(),
    }
}

/// The JSON value that a protobuf value stands for.
pub fn value_to_json(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(*flag),
        Some(Kind::NumberValue(number)) => number_to_json(*number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_to_json).collect(),
        Some(Kind::StructValue(fields)) => Value::Object(struct_to_json(fields)),
    }
}

/// The protobuf value that stands for a JSON value; every number becomes a double.
pub fn value_from_json(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(prost_types::NullValue::NullValue.into()),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        // Only serde_json's arbitrary precision has numbers that are no double.
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(value_from_json).collect(),
        }),
        Value::Object(object) => Kind::StructValue(struct_from_json(object)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Whole numbers are printed without a fraction, as protobuf's JSON does.
fn number_to_json(number: f64) -> Value {
    // Below 2^53 every whole double is an exact integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_duration_survives_the_wire() {
        let duration = Duration::new(3, 250_000_000);

        assert_eq!(from_wire(&to_wire(duration)).unwrap(), duration);
    }

    #[test]
    fn a_negative_duration_is_refused() {
        let negative = prost_types::Duration {
            seconds: -1,
            nanos: 0,
        };

        assert!(from_wire(&negative).is_err());
    }

    #[test]
    fn the_longest_duration_of_rust_becomes_the_longest_of_protobuf() {
        assert_eq!(to_wire(Duration::MAX).seconds, 315_576_000_000);
    }

    #[test]
    fn durations_out_of_range_are_refused() {
        for seconds in [i64::MIN, -1, 0, i64::MAX] {
            for nanos in [i32::MIN, -1, 0, i32::MAX] {
                let wire = prost_types::Duration { seconds, nanos };
                assert_eq!(from_wire(&wire).is_ok(), (seconds, nanos) == (0, 0));
            }
        }
    }

    #[test]
    fn json_survives_a_struct() {
        let json = json!({"a": [1, 2.5, "x", null, true], "b": {"c": {}}, "d": -7});
        let object = json.as_object().unwrap();

        assert_eq!(&struct_to_json(&struct_from_json(object)), object);
    }

    #[test]
    fn numbers_json_cannot_say_become_null() {
        let infinite = prost_types::Value {
            kind: Some(Kind::NumberValue(f64::INFINITY)),
        };

        assert_eq!(value_to_json(&infinite), Value::Null);
    }
}
