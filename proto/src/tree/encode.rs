//! The bytes of a tree, as protobuf has them on the wire.

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{Held, Tree, Value};
use crate::table::{Field, Type};

impl Value {
    /// The bytes of a message: the generated type of the same name can be decoded from them.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        message(self)
    }
}

impl Tree {
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (field, held) in self.fields() {
            add_field(field, held, &mut out);
        }
        out
    }
}

fn add_field(field: &Field, held: &Held, out: &mut Vec<u8>) {
    let (number, value_type) = (field.number(), field.value());
    match held {
        Held::One(value) => {
            if field.has_presence() || !is_nothing(value) {
                add_one(number, value_type, value, out);
            }
        }
        Held::List(values) if is_packed(value_type) => {
            let mut packed = Vec::new();
            for value in values {
                add_scalar(value_type, value, &mut packed);
            }
            if !packed.is_empty() {
                add_bytes(number, &packed, out);
            }
        }
        Held::List(values) => {
            for value in values {
                add_one(number, value_type, value, out);
            }
        }
        Held::Map(entries) => {
            for (key, value) in entries {
                let mut entry = Vec::new();
                add_bytes(1, key.as_bytes(), &mut entry);
                add_one(2, value_type, value, &mut entry);
                add_bytes(number, &entry, out);
            }
        }
    }
}

/// A value behind its number.
fn add_one(number: u32, value_type: Type, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => add_bytes(number, text.as_bytes(), out),
        Value::Bytes(bytes) | Value::WellKnown(bytes) => add_bytes(number, bytes, out),
        Value::Message(_) | Value::Any { .. } | Value::Duration(_) | Value::Wrapped(..) => {
            add_bytes(number, &message(value), out);
        }
        scalar => {
            encode_key(number, wire_type(value_type), out);
            add_scalar(value_type, scalar, out);
        }
    }
}

/// The bytes of a value that is a message.
fn message(value: &Value) -> Vec<u8> {
    match value {
        Value::Message(tree) => tree.encoded(),
        Value::Duration(duration) => duration.encode_to_vec(),
        Value::WellKnown(bytes) => bytes.clone(),
        Value::Any {
            type_url,
            message: inner,
        } => {
            let mut out = Vec::new();
            add_bytes(1, type_url.as_bytes(), &mut out);
            add_bytes(2, &message(inner), &mut out);
            out
        }
        Value::Wrapped(value_type, inner) => {
            let mut out = Vec::new();
            if !is_nothing(inner) {
                add_one(1, *value_type, inner, &mut out);
            }
            out
        }
        _ => Vec::new(),
    }
}

fn add_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A scalar without its number.
fn add_scalar(value_type: Type, value: &Value, out: &mut Vec<u8>) {
    match *value {
        Value::Double(number) => out.extend(number.to_le_bytes()),
        Value::Float(number) => out.extend(number.to_le_bytes()),
        Value::Bool(flag) => encode_varint(flag.into(), out),
        Value::Enum(number) => encode_varint(i64::from(number).cast_unsigned(), out),
        Value::Signed(number) => add_bits(value_type, number.cast_unsigned(), out),
        Value::Unsigned(number) => add_bits(value_type, number, out),
        // Only scalars come here.
        _ => {}
    }
}

/// A whole number. Those of 32 bits have been found to fit, and a sign goes on in the upper half, as varints want it.
fn add_bits(value_type: Type, bits: u64, out: &mut Vec<u8>) {
    match value_type {
        Type::Sint32 | Type::Sint64 => {
            let sign = (bits.cast_signed() >> 63).cast_unsigned();
            encode_varint((bits << 1) ^ sign, out);
        }
        Type::Fixed32 | Type::Sfixed32 => out.extend_from_slice(&bits.to_le_bytes()[..4]),
        Type::Fixed64 | Type::Sfixed64 => out.extend(bits.to_le_bytes()),
        _ => encode_varint(bits, out),
    }
}

fn wire_type(value_type: Type) -> WireType {
    match value_type {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => WireType::SixtyFourBit,
        Type::Float | Type::Fixed32 | Type::Sfixed32 => WireType::ThirtyTwoBit,
        Type::String | Type::Bytes | Type::Message(_) => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

fn is_packed(value_type: Type) -> bool {
    wire_type(value_type) != WireType::LengthDelimited
}

/// Whether it is what a field has by itself, and need not be said.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Double(number) => number.to_bits() == 0,
        Value::Float(number) => number.to_bits() == 0,
        Value::Signed(number) => *number == 0,
        Value::Unsigned(number) => *number == 0,
        Value::Bool(flag) => !flag,
        Value::Text(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Enum(number) => *number == 0,
        _ => false,
    }
}
