//! Which fields the messages of this crate have: what [`crate::unknown`] compares encoded bytes with.
//!
//! The build script writes it from the `.proto` files, as constants without pointers: nothing is read, built or
//! relocated at run time, so the table costs a process no memory of its own. Everything else that
//! reflection knows is in [`crate::descriptor_pool`], which takes megabytes.

/// A message and its fields.
#[derive(Debug)]
pub(crate) struct Message {
    name: Name,
    contents: Contents,
}

/// What may be in a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Contents {
    /// These of `FIELDS`.
    Fields { first: u16, count: u16 },
    /// `google.protobuf.Any`: another message and its type.
    Any,
    /// Another message of `google.protobuf`.
    WellKnown,
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    number: u32,
    name: Name,
    shape: Shape,
}

/// How a field holds messages; the numbers are indexes into `MESSAGES`.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Scalar,
    Message(u16),
    List(u16),
    Map(u16),
    /// A map whose values are no messages.
    ScalarMap,
}

/// Where in `NAMES` a name is.
#[derive(Debug, Clone, Copy)]
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
    use super::{Contents, Field, Message, Name, Shape};

    include!(concat!(env!("OUT_DIR"), "/table.rs"));
}

use generated::{FIELDS, MESSAGES, NAMES};

/// The message of this full name.
pub(crate) fn message(name: &str) -> Option<&'static Message> {
    let index = MESSAGES
        .binary_search_by(|message| message.name.text().cmp(name))
        .ok()?;
    MESSAGES.get(index)
}

impl Message {
    /// What may be in it.
    pub(crate) fn contents(&self) -> Contents {
        self.contents
    }

    /// Its field with this number.
    pub(crate) fn field(&self, number: u32) -> Option<&'static Field> {
        let Contents::Fields { first, count } = self.contents else {
            return None;
        };
        let first = usize::from(first);
        let fields = FIELDS.get(first..first + usize::from(count))?;
        let index = fields.binary_search_by_key(&number, |field| field.number);
        fields.get(index.ok()?)
    }
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

    /// What it holds.
    pub(crate) fn holds(&self) -> Holds {
        let message = |index: u16| &MESSAGES[usize::from(index)];
        match self.shape {
            Shape::Scalar => Holds::Scalars,
            Shape::Message(index) => Holds::Message(message(index)),
            Shape::List(index) => Holds::List(message(index)),
            Shape::Map(index) => Holds::Map(message(index)),
            Shape::ScalarMap => Holds::ScalarMap,
        }
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
