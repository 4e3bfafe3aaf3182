//! Which fields the messages of this crate have: what [`crate::unknown`] compares encoded bytes with, and what JSON is
//! read with.
//!
//! The build script writes it from the `.proto` files, as constants without pointers: nothing is read, built or
//! relocated at run time, so the table costs a process no memory of its own. Everything else that
//! reflection knows is in [`crate::descriptor_pool`], which takes megabytes and milliseconds.

use std::ops::Range;

/// A message and its fields.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    name: Name,
    contents: Contents,
    asked: (u16, u16),
}

/// What may be in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// These of `FIELDS`.
    Fields { first: u16, count: u16 },
    /// `google.protobuf.Any`: another message and its type.
    Any,
    /// Another message of `google.protobuf`.
    WellKnown,
}

/// A field of a message.
#[derive(Debug, PartialEq)]
pub(crate) struct Field {
    number: u32,
    name: Name,
    /// The name of the `oneof` that it is in; empty where it is in none.
    choice: Name,
    label: Label,
    value: Type,
}

/// How often a field may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// At most once.
    One,
    /// Any number of times.
    List,
    /// Once for each key, which is a text.
    Map,
}

/// What a field, a member of a list or a value of a map is; the numbers are indexes into `MESSAGES` and `ENUMS`.
#[allow(
    dead_code,
    reason = "all that protobuf has, whether or not a message has one"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(u16),
    Message(u16),
}

/// An enumeration: these of `VALUES`.
#[derive(Debug)]
pub(crate) struct Enum {
    first: u16,
    count: u16,
}

/// A value of an enumeration.
#[derive(Debug)]
pub(crate) struct EnumValue {
    number: i32,
    name: Name,
}

/// Where in `NAMES` a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    start: u32,
    length: u16,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holds {
    /// No messages.
    Scalars,
    /// One message.
    Message(&'static Message),
    /// Messages, one after the other.
    List(&'static Message),
    /// Messages, each with a key.
    Map(&'static Message),
    /// A map of something else.
    ScalarMap,
}

mod generated {
    use super::{Contents, Enum, EnumValue, Field, Label, Message, Name, Type};

    include!(concat!(env!("OUT_DIR"), "/table.rs"));
}

use generated::{ENUMS, FIELDS, MESSAGES, NAMES, VALUES};

/// The message of this full name.
pub(crate) fn message(name: &str) -> Option<&'static Message> {
    let index = MESSAGES
        .binary_search_by(|message| message.name.text().cmp(name))
        .ok()?;
    MESSAGES.get(index)
}

impl Message {
    /// Its full name.
    pub(crate) fn name(&self) -> &'static str {
        self.name.text()
    }

    /// What may be in it.
    pub(crate) fn contents(&self) -> Contents {
        self.contents
    }

    /// Which rules are about it: a part of those that [`crate::rules`] has.
    pub(crate) fn asked(&self) -> Range<usize> {
        usize::from(self.asked.0)..usize::from(self.asked.1)
    }

    /// All its fields, in the order of their numbers.
    pub(crate) fn fields(&self) -> &'static [Field] {
        let Contents::Fields { first, count } = self.contents else {
            return &[];
        };
        let first = usize::from(first);
        FIELDS.get(first..first + usize::from(count)).unwrap_or(&[])
    }

    /// Its field with this number.
    pub(crate) fn field(&self, number: u32) -> Option<&'static Field> {
        let fields = self.fields();
        let index = fields.binary_search_by_key(&number, |field| field.number);
        fields.get(index.ok()?)
    }

    /// Its field of this name, as in the `.proto` file or as JSON spells it.
    pub(crate) fn field_of_name(&self, name: &str) -> Option<&'static Field> {
        let mut fields = self.fields().iter();
        fields.find(|field| field.name() == name || is_camel_case(name, field.name()))
    }
}

/// Whether `given` is what JSON makes of a field's name: without underscores, and with a capital after each.
fn is_camel_case(given: &str, name: &str) -> bool {
    let mut given = given.bytes();
    let mut after_underscore = false;
    for byte in name.bytes() {
        if byte == b'_' {
            after_underscore = true;
            continue;
        }
        let wanted = match std::mem::take(&mut after_underscore) {
            true => byte.to_ascii_uppercase(),
            false => byte,
        };
        if given.next() != Some(wanted) {
            return false;
        }
    }
    given.next().is_none()
}

impl Field {
    /// Its number on the wire.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Its name in the `.proto` file.
    pub(crate) fn name(&self) -> &'static str {
        self.name.text()
    }

    /// The `oneof` that it is in.
    pub(crate) fn choice(&self) -> Option<&'static str> {
        Some(self.choice.text()).filter(|name| !name.is_empty())
    }

    /// How often it may be there.
    pub(crate) fn label(&self) -> Label {
        self.label
    }

    /// What it is, or each of its members.
    pub(crate) fn value(&self) -> Type {
        self.value
    }

    /// Whether it can be left out, other than by the value that it has by itself.
    pub(crate) fn has_presence(&self) -> bool {
        let is_message = matches!(self.value, Type::Message(_));
        self.label == Label::One && (is_message || self.choice().is_some())
    }

    /// What it holds.
    pub(crate) fn holds(&self) -> Holds {
        match (self.label, self.value.message()) {
            (Label::One, Some(message)) => Holds::Message(message),
            (Label::List, Some(message)) => Holds::List(message),
            (Label::Map, Some(message)) => Holds::Map(message),
            (Label::Map, None) => Holds::ScalarMap,
            (_, None) => Holds::Scalars,
        }
    }
}

impl Type {
    /// The message that it is.
    pub(crate) fn message(self) -> Option<&'static Message> {
        match self {
            Type::Message(index) => MESSAGES.get(usize::from(index)),
            _ => None,
        }
    }

    /// The values that it may have, where it is an enumeration.
    pub(crate) fn values(self) -> &'static [EnumValue] {
        let Type::Enum(index) = self else {
            return &[];
        };
        let Some(Enum { first, count }) = ENUMS.get(usize::from(index)) else {
            return &[];
        };
        let first = usize::from(*first);
        VALUES
            .get(first..first + usize::from(*count))
            .unwrap_or(&[])
    }
}

impl EnumValue {
    /// Its number.
    pub(crate) fn number(&self) -> i32 {
        self.number
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name.text()
    }
}

impl Name {
    fn text(self) -> &'static str {
        let start = self.start as usize;
        &NAMES[start..start + usize::from(self.length)]
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

    use super::*;

    /// What the table says of a field, in the words of the test.
    fn described(field: &Field) -> (u32, &'static str, &'static str, &'static str) {
        let (shape, inner) = match field.holds() {
            Holds::Scalars => ("scalars", ""),
            Holds::Message(inner) => ("message", inner.name.text()),
            Holds::List(inner) => ("list", inner.name.text()),
            Holds::Map(inner) => ("map", inner.name.text()),
            Holds::ScalarMap => ("map", ""),
        };
        (field.number(), field.name(), shape, inner)
    }

    /// What the descriptors say of a field, in the same words.
    fn reflected(field: &FieldDescriptor) -> (u32, String, &'static str, String) {
        let name_of = |kind: Kind| match kind {
            Kind::Message(message) => message.full_name().to_owned(),
            _ => String::new(),
        };
        let (shape, inner) = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                ("map", name_of(entry.map_entry_value_field().kind()))
            }
            Kind::Message(message) if field.is_list() => ("list", message.full_name().to_owned()),
            Kind::Message(message) => ("message", message.full_name().to_owned()),
            _ => ("scalars", String::new()),
        };
        (field.number(), field.name().to_owned(), shape, inner)
    }

    fn assert_same_fields(descriptor: &MessageDescriptor) {
        let message = message(descriptor.full_name())
            .unwrap_or_else(|| panic!("{} is missing", descriptor.full_name()));
        let Contents::Fields { count, .. } = message.contents() else {
            assert_eq!(descriptor.package_name(), "google.protobuf");
            return;
        };
        assert_eq!(usize::from(count), descriptor.fields().len());
        for field in descriptor.fields() {
            let (number, name, shape, inner) = reflected(&field);
            let found = message.field(number).map(described);
            assert_eq!(found, Some((number, &*name, shape, &*inner)), "{field:?}");
        }
    }

    fn sorted(values: impl Iterator<Item = String>) -> String {
        let mut values: Vec<_> = values.collect();
        values.sort();
        values.join(" ")
    }

    /// What the table says of a field's type, and the `oneof` it is in, in the words of the test.
    fn typed(field: &Field) -> (String, String, bool) {
        let value = match field.value() {
            Type::Enum(_) => {
                let values = field.value().values().iter();
                sorted(values.map(|value| format!("{}={}", value.name(), value.number())))
            }
            Type::Message(_) => "message".to_owned(),
            scalar => format!("{scalar:?}").to_lowercase(),
        };
        let choice = field.choice().unwrap_or_default().to_owned();
        (value, choice, field.has_presence())
    }

    /// What the descriptors say of it, in the same words.
    fn typed_by_reflection(field: &FieldDescriptor) -> (String, String, bool) {
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                assert_eq!(entry.map_entry_key_field().kind(), Kind::String);
                entry.map_entry_value_field().kind()
            }
            kind => kind,
        };
        let value = match kind {
            Kind::Enum(values) => {
                let values = values.values();
                sorted(values.map(|value| format!("{}={}", value.name(), value.number())))
            }
            Kind::Message(_) => "message".to_owned(),
            scalar => format!("{scalar:?}").to_lowercase(),
        };
        let choice = field.containing_oneof();
        let choice = choice.map(|choice| choice.name().to_owned());
        (value, choice.unwrap_or_default(), field.supports_presence())
    }

    #[test]
    fn it_knows_types_enumerations_and_choices() {
        for message in crate::descriptor_pool().all_messages() {
            let Some(found) = super::message(message.full_name()) else {
                continue;
            };
            for field in found.fields() {
                let declared = message.get_field(field.number()).unwrap();
                assert_eq!(typed(field), typed_by_reflection(&declared), "{declared:?}");
                let by_name = found.field_of_name(declared.json_name()).unwrap();
                assert_eq!(by_name.number(), declared.number(), "{declared:?}");
            }
        }
    }

    #[test]
    fn it_has_every_field_of_every_message() {
        let pool = crate::descriptor_pool();
        let messages = || {
            let all = pool.all_messages();
            all.filter(|message| !message.is_map_entry())
        };

        messages().for_each(|message| assert_same_fields(&message));

        assert_eq!(MESSAGES.len(), messages().count());
    }

    #[test]
    fn other_names_and_numbers_are_not_in_it() {
        assert!(message("envoy.config.listener.v3.Listenes").is_none());
        assert!(message("").is_none());
        let listener = message("envoy.config.listener.v3.Listener").unwrap();
        assert!(listener.field(0).is_none());
        assert!(listener.field(u32::MAX).is_none());
    }
}
