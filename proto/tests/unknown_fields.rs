//! Unknown fields as the table of fields finds them, against reflection: over every message, with fields
//! added at random places and with damaged bytes. The seeds are fixed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{DecodeError, Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use weft_proto::unknown::UnknownError;
use weft_proto::{Any, any, descriptor_pool, unknown};

/// Random messages of each type.
const ROUNDS: u64 = 20;
/// How many messages one random message consists of, at most.
const LARGEST: usize = 40;
/// As many answers as `unknown` gives.
const MAX_PATHS: usize = 32;
/// A number that no field has.
const UNUSED: u32 = 14_999;

#[test]
fn it_finds_what_reflection_finds_in_any_message() {
    let pool = descriptor_pool();
    let mut found = 0;
    for (descriptor, mut random) in cases(&pool) {
        let bytes = Sender::new(&mut random, &pool).message(&descriptor);

        let expected = reflected(&descriptor, &bytes).unwrap();

        assert_found(&descriptor, &bytes, expected.paths.clone());
        found += expected.paths.len();
    }
    assert!(found > 5000, "only {found} unknown fields in all messages");
}

#[test]
fn it_finds_what_reflection_finds_in_damaged_messages_that_can_still_be_decoded() {
    let pool = descriptor_pool();
    let mut compared = 0;
    for (descriptor, mut random) in cases(&pool) {
        let mut bytes = Sender::new(&mut random, &pool).message(&descriptor);
        for _ in 0..random.random_range(1..4) {
            damage(&mut bytes, &mut random);
        }

        compared += usize::from(agrees_where_both_decode(&descriptor, &bytes));
    }
    assert!(compared > 1000, "only {compared} could be decoded");
}

#[test]
fn it_answers_to_random_bytes_of_every_type() {
    let pool = descriptor_pool();
    let mut compared = 0;
    for (descriptor, mut random) in cases(&pool) {
        let mut bytes = vec![0; random.random_range(0..12)];
        random.fill(&mut bytes[..]);

        compared += usize::from(agrees_where_both_decode(&descriptor, &bytes));
    }
    assert!(compared > 500, "only {compared} could be decoded");
}

/// Compares what is found, if both can read the bytes. prost reads entries of maps whatever their wire type is,
/// and groups; `unknown` refuses both.
fn agrees_where_both_decode(descriptor: &MessageDescriptor, bytes: &[u8]) -> bool {
    let found = find(descriptor, bytes);
    match reflected(descriptor, bytes) {
        Ok(expected) if expected.is_literal && found.is_ok() => {
            assert_found(descriptor, bytes, expected.paths);
            true
        }
        _ => false,
    }
}

/// Every message type, several times, each time with a seed of its own.
fn cases(pool: &DescriptorPool) -> impl Iterator<Item = (MessageDescriptor, SmallRng)> {
    let messages = pool
        .all_messages()
        .filter(|message| !message.is_map_entry());
    let rounds = messages.flat_map(|message| (0..ROUNDS).map(move |_| message.clone()));
    rounds
        .zip(0..)
        .map(|(message, seed)| (message, SmallRng::seed_from_u64(seed)))
}

fn find(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<Vec<String>, UnknownError> {
    unknown::fields(descriptor.full_name(), bytes)
}

fn assert_found(descriptor: &MessageDescriptor, bytes: &[u8], mut expected: Vec<String>) {
    let mut found = find(descriptor, bytes).unwrap_or_else(|error| {
        panic!("{error} in a {} of {bytes:02x?}", descriptor.full_name());
    });
    found.sort();
    expected.sort();
    if expected.len() > MAX_PATHS {
        assert_eq!(found.len(), MAX_PATHS);
        assert!(found.iter().all(|path| expected.contains(path)));
    } else {
        assert_eq!(found, expected, "in a {}", descriptor.full_name());
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut SmallRng) {
    if bytes.is_empty() {
        return;
    }
    let position = random.random_range(0..bytes.len());
    match random.random_range(0..4) {
        0 => bytes.truncate(position),
        1 => bytes[position] = random.random(),
        _ => bytes[position] ^= 1 << random.random_range(0..8),
    }
}

/// What reflection finds.
struct Reflected {
    paths: Vec<String>,
    /// Whether decoding kept all bytes: nothing came twice and was merged, and there were no groups, which
    /// proto3 has not and `unknown` refuses.
    is_literal: bool,
}

fn reflected(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<Reflected, DecodeError> {
    let mut reflected = Reflected {
        paths: Vec::new(),
        is_literal: true,
    };
    reflected.decode(descriptor, bytes, "")?;
    Ok(reflected)
}

impl Reflected {
    fn decode(
        &mut self,
        descriptor: &MessageDescriptor,
        bytes: &[u8],
        path: &str,
    ) -> Result<(), DecodeError> {
        let message = DynamicMessage::decode(descriptor.clone(), bytes)?;
        self.is_literal &= message.encode_to_vec().len() == bytes.len();
        self.message(&message, path)
    }

    fn message(&mut self, message: &DynamicMessage, path: &str) -> Result<(), DecodeError> {
        use prost_reflect::ReflectMessage as _;
        let descriptor = message.descriptor();
        let is_any = descriptor.full_name() == Any::full_name();
        if descriptor.package_name() == Any::PACKAGE && !is_any {
            return Ok(());
        }
        for field in message.unknown_fields() {
            self.is_literal &= field.wire_type() != WireType::StartGroup;
            let number = format!("<field {}>", field.number());
            self.paths.push(joined(path, &number));
        }
        if is_any {
            return self.any(message, path);
        }
        for (field, value) in message.fields() {
            self.value(value, &joined(path, field.name()))?;
        }
        Ok(())
    }

    fn any(&mut self, message: &DynamicMessage, path: &str) -> Result<(), DecodeError> {
        use prost_reflect::ReflectMessage as _;
        let held: Any = message.transcode_to()?;
        let descriptor = message.descriptor();
        let name = any::type_name(&held.type_url);
        match descriptor.parent_pool().get_message_by_name(name) {
            Some(inner) => self.decode(&inner, &held.value, path),
            None => Ok(()),
        }
    }

    fn value(&mut self, value: &Value, path: &str) -> Result<(), DecodeError> {
        match value {
            Value::Message(message) => self.message(message, path)?,
            Value::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.value(value, &format!("{path}[{index}]"))?;
                }
            }
            Value::Map(values) => {
                for (key, value) in values {
                    self.value(value, &format!("{path}[{:?}]", shown(key)))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn joined(path: &str, step: &str) -> String {
    if path.is_empty() {
        return step.to_owned();
    }
    format!("{path}.{step}")
}

fn shown(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(flag) => u8::from(*flag).to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
    }
}

/// Encodes random messages with unknown fields here and there.
struct Sender<'a> {
    random: &'a mut SmallRng,
    pool: &'a DescriptorPool,
    /// How many messages may still be made.
    left: usize,
}

impl<'a> Sender<'a> {
    fn new(random: &'a mut SmallRng, pool: &'a DescriptorPool) -> Self {
        Self {
            random,
            pool,
            left: LARGEST,
        }
    }

    fn message(&mut self, descriptor: &MessageDescriptor) -> Vec<u8> {
        if descriptor.full_name() == Any::full_name() {
            return self.any();
        }
        let mut bytes = Vec::new();
        let mut chosen = std::collections::HashSet::new();
        for field in descriptor.fields() {
            let oneof = field.containing_oneof();
            let is_free = oneof.is_none_or(|oneof| chosen.insert(oneof.full_name().to_owned()));
            if is_free && self.left > 0 && self.random.random_bool(0.6) {
                self.field(descriptor, &field, &mut bytes);
            }
        }
        if self.random.random_bool(0.2) {
            self.unknown_field(&mut bytes);
        }
        bytes
    }

    fn field(
        &mut self,
        descriptor: &MessageDescriptor,
        field: &FieldDescriptor,
        bytes: &mut Vec<u8>,
    ) {
        let Kind::Message(inner) = field.kind() else {
            bytes.extend(scalar(descriptor, field));
            return;
        };
        let count = if field.is_list() || field.is_map() {
            self.random.random_range(0..3)
        } else {
            1
        };
        for index in 0..count {
            self.left = self.left.saturating_sub(1);
            let encoded = match field.is_map() {
                true => self.map_entry(&inner, index),
                false => self.message(&inner),
            };
            length_delimited(field.number(), &encoded, bytes);
        }
    }

    fn map_entry(&mut self, entry: &MessageDescriptor, index: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        match entry.map_entry_key_field().kind() {
            Kind::String => length_delimited(1, format!("key {index}").as_bytes(), &mut bytes),
            _ => {
                encode_key(1, WireType::Varint, &mut bytes);
                encode_varint(u64::from(index), &mut bytes);
            }
        }
        let value = entry.map_entry_value_field();
        match value.kind() {
            Kind::Message(inner) => length_delimited(2, &self.message(&inner), &mut bytes),
            _ => bytes.extend(scalar(entry, &value)),
        }
        bytes
    }

    /// Of a random type, which one time in eight is none of ours.
    fn any(&mut self) -> Vec<u8> {
        self.left = self.left.saturating_sub(1);
        let all: Vec<_> = self
            .pool
            .all_messages()
            .filter(|message| !message.is_map_entry())
            .collect();
        let inner = &all[self.random.random_range(0..all.len())];
        let value = self.message(inner).into();
        let suffix = if self.random.random_bool(0.125) {
            "X"
        } else {
            ""
        };
        let type_url = format!("type.googleapis.com/{}{suffix}", inner.full_name());
        let mut bytes = Any { type_url, value }.encode_to_vec();
        if self.random.random_bool(0.1) {
            self.unknown_field(&mut bytes);
        }
        bytes
    }

    fn unknown_field(&mut self, bytes: &mut Vec<u8>) {
        let number = UNUSED + self.random.random_range(0..3);
        match self.random.random_range(0..4) {
            0 => {
                encode_key(number, WireType::Varint, bytes);
                encode_varint(self.random.random(), bytes);
            }
            1 => {
                encode_key(number, WireType::SixtyFourBit, bytes);
                bytes.extend(self.random.random::<[u8; 8]>());
            }
            2 => {
                encode_key(number, WireType::ThirtyTwoBit, bytes);
                bytes.extend(self.random.random::<[u8; 4]>());
            }
            _ => length_delimited(number, b"something", bytes),
        }
    }
}

fn length_delimited(number: u32, value: &[u8], bytes: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, bytes);
    encode_varint(value.len() as u64, bytes);
    bytes.extend(value);
}

/// A message with only this field, which is not its default.
fn scalar(descriptor: &MessageDescriptor, field: &FieldDescriptor) -> Vec<u8> {
    let value = match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::Double => Value::F64(0.5),
        Kind::Float => Value::F32(0.5),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(-1),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(-1),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(1),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(1),
        Kind::String => Value::String(field.name().into()),
        Kind::Bytes => Value::Bytes(field.name().to_owned().into()),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(_) => unreachable!("not a scalar"),
    };
    let value = match field.is_list() {
        true => Value::List(vec![value.clone(), value]),
        false => value,
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field(field, value);
    message.encode_to_vec()
}
