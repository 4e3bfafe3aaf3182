//! JSON as numbers, texts, bytes and values of enumerations. Some are read in more than one spelling, as protobuf's JSON and
//! Envoy have it: numbers as texts, values of enumerations in whatever case, `auto` for `AUTO`, and booleans as texts.

use std::fmt::Display;
use std::str::FromStr;

use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use serde::de::Error as _;
use serde_json::{Error, Value as Json};

use super::read::mismatch;
use crate::table::Type;
use crate::tree::Value;

/// The value of this type, which is no message.
pub(super) fn read(value_type: Type, json: &Json) -> Result<Value, Error> {
    Ok(match value_type {
        Type::Double => Value::Double(double(json)?),
        Type::Float => Value::Float(float(json)?),
        Type::Int32 | Type::Sint32 | Type::Sfixed32 => {
            Value::Signed(integer::<i32>(json, "a 32-bit signed integer")?.into())
        }
        Type::Int64 | Type::Sint64 | Type::Sfixed64 => {
            Value::Signed(integer(json, "a 64-bit signed integer or decimal string")?)
        }
        Type::Uint32 | Type::Fixed32 => {
            let expected = "a 32-bit unsigned integer or decimal string";
            Value::Unsigned(integer::<u32>(json, expected)?.into())
        }
        Type::Uint64 | Type::Fixed64 => {
            let expected = "a 64-bit unsigned integer or decimal string";
            Value::Unsigned(integer(json, expected)?)
        }
        Type::Bool => Value::Bool(boolean(json)?),
        Type::String => Value::Text(text(json, "a string")?.to_owned()),
        Type::Bytes => Value::Bytes(bytes(json)?),
        Type::Enum(_) => Value::Enum(enumerated(value_type, json)?),
        Type::Message(_) => return Err(Error::custom("a message is no scalar")),
    })
}

/// A text, or else what was expected.
pub(super) fn text<'a>(json: &'a Json, expected: &str) -> Result<&'a str, Error> {
    json.as_str().ok_or_else(|| mismatch(json, expected))
}

fn double(json: &Json) -> Result<f64, Error> {
    match json {
        Json::Number(number) => Ok(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => text.parse().map_err(Error::custom),
        other => Err(mismatch(other, "a 64-bit floating point value")),
    }
}

fn float(json: &Json) -> Result<f32, Error> {
    let number = match json {
        Json::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Json::String(text) => return text.parse().map_err(Error::custom),
        other => return Err(mismatch(other, "a 32-bit floating point value")),
    };
    match number.abs() > f64::from(f32::MAX) {
        true => Err(Error::custom("float value out of range")),
        #[allow(
            clippy::cast_possible_truncation,
            reason = "it was found to be in range"
        )]
        false => Ok(number as f32),
    }
}

/// A whole number, which may be written as a text or with a fraction of zero.
fn integer<T>(json: &Json, expected: &str) -> Result<T, Error>
where
    T: FromStr<Err: Display> + TryFrom<i128, Error: Display>,
{
    let number = match json {
        Json::String(text) => return text.parse().map_err(Error::custom),
        Json::Number(number) => number,
        other => return Err(mismatch(other, expected)),
    };
    let whole = number.as_i64().map(i128::from);
    if let Some(whole) = whole.or_else(|| number.as_u64().map(i128::from)) {
        return T::try_from(whole).map_err(Error::custom);
    }
    let number = number.as_f64().unwrap_or(f64::NAN);
    if number.fract() != 0.0 {
        return Err(Error::custom("expected integer value"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "what is out of range becomes the outermost, and is refused"
    )]
    let whole = number as i128;
    T::try_from(whole).map_err(|_| Error::custom("float value out of range"))
}

fn boolean(json: &Json) -> Result<bool, Error> {
    match json {
        Json::Bool(flag) => Ok(*flag),
        Json::String(text) if text == "true" => Ok(true),
        Json::String(text) if text == "false" => Ok(false),
        other => Err(mismatch(other, "a boolean")),
    }
}

/// Bytes in base64, of either alphabet, with padding or without.
fn bytes(json: &Json) -> Result<Vec<u8>, Error> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = text(json, "a base64-encoded string")?;
    let alphabet = match text.contains(['-', '_']) {
        true => &URL_SAFE,
        false => &STANDARD,
    };
    let decoded = GeneralPurpose::new(alphabet, CONFIG).decode(text);
    decoded.map_err(|error| Error::custom(format!("invalid base64: {error}")))
}

fn enumerated(value_type: Type, json: &Json) -> Result<i32, Error> {
    let values = value_type.values();
    let text = match json {
        Json::String(text) => text,
        Json::Number(number) if !number.is_f64() => return integer(json, "an integer"),
        other => return Err(mismatch(other, "a string or integer")),
    };
    let same = values.iter().find(|value| value.name() == text);
    let similar = || {
        values
            .iter()
            .find(|value| value.name().eq_ignore_ascii_case(text))
    };
    match same.or_else(similar) {
        Some(value) => Ok(value.number()),
        None => Err(Error::custom(format!("unrecognized enum value '{text}'"))),
    }
}
