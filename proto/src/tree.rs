//! A message that is known by the table alone: what was read from JSON, until it is encoded.
//!
//! [`crate::rules`] looks at it, and [`Value::encoded`] makes of it the bytes that the generated types are decoded from. Where
//! a message is only looked at, this is much less than the descriptors that reflection needs.

mod encode;

use std::collections::BTreeMap;

use crate::table::{Field, Label, Message, Type};

/// A message, and those of its fields that were given.
#[derive(Debug, PartialEq)]
pub(crate) struct Tree {
    /// What it is.
    pub(crate) of: &'static Message,
    fields: Vec<(&'static Field, Held)>,
}

/// What a field holds.
#[derive(Debug, PartialEq)]
pub(crate) enum Held {
    /// One value.
    One(Value),
    /// One after the other.
    List(Vec<Value>),
    /// Each with a key.
    Map(BTreeMap<String, Value>),
}

/// One value.
#[derive(Debug, PartialEq)]
pub(crate) enum Value {
    /// Of 64 bits.
    Double(f64),
    /// Of 32 bits.
    Float(f32),
    /// Of any type with a sign.
    Signed(i64),
    /// Of any type without.
    Unsigned(u64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A value of an enumeration, which need not be one of those that it has.
    Enum(i32),
    /// A message with fields.
    Message(Tree),
    /// A message and its type.
    Any {
        /// The URL of its type.
        type_url: String,
        /// The message.
        message: Box<Value>,
    },
    /// A `google.protobuf.Duration`.
    Duration(prost_types::Duration),
    /// A scalar in its wrapper, such as `google.protobuf.BoolValue`.
    Wrapped(Type, Box<Value>),
    /// Another message of `google.protobuf`.
    WellKnown(Vec<u8>),
}

impl Tree {
    /// One with nothing in it.
    pub(crate) fn new(of: &'static Message) -> Self {
        Tree {
            of,
            fields: Vec::new(),
        }
    }

    /// Puts something into a field, in place of what was there.
    pub(crate) fn set(&mut self, field: &'static Field, held: Held) {
        let number = field.number();
        let place = self
            .fields
            .binary_search_by_key(&number, |each| each.0.number());
        match place {
            Ok(index) => self.fields[index].1 = held,
            Err(index) => self.fields.insert(index, (field, held)),
        }
    }

    /// What is in a field.
    pub(crate) fn get(&self, field: &Field) -> Option<&Held> {
        let number = field.number();
        let place = self
            .fields
            .binary_search_by_key(&number, |each| each.0.number());
        place.ok().map(|index| &self.fields[index].1)
    }

    /// The fields that were given, in the order of their numbers.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static Field, &Held)> {
        self.fields.iter().map(|(field, held)| (*field, held))
    }

    /// Whether a member of this `oneof` is there.
    pub(crate) fn has_choice(&self, choice: &str) -> bool {
        self.fields()
            .any(|(field, _)| field.choice() == Some(choice))
    }
}

impl Held {
    /// What a field without presence has in it where it was not given.
    pub(crate) fn nothing(field: &Field) -> Self {
        match field.label() {
            Label::One => Held::One(Value::nothing(field.value())),
            Label::List => Held::List(Vec::new()),
            Label::Map => Held::Map(BTreeMap::new()),
        }
    }
}

impl Value {
    fn nothing(scalar: Type) -> Self {
        match scalar {
            Type::Double => Value::Double(0.0),
            Type::Float => Value::Float(0.0),
            Type::Int32 | Type::Int64 | Type::Sint32 | Type::Sint64 => Value::Signed(0),
            Type::Sfixed32 | Type::Sfixed64 => Value::Signed(0),
            Type::Uint32 | Type::Uint64 | Type::Fixed32 | Type::Fixed64 => Value::Unsigned(0),
            Type::Bool => Value::Bool(false),
            Type::String => Value::Text(String::new()),
            Type::Bytes => Value::Bytes(Vec::new()),
            Type::Enum(_) => Value::Enum(0),
            // A message has no value by itself: it is there or not.
            Type::Message(_) => Value::WellKnown(Vec::new()),
        }
    }
}
