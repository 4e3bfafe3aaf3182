//! Writes the table of messages and fields that `src/table.rs` reads: constants without a pointer in them.
//!
//! A pointer would have to be relocated when the program is loaded, and its page would then belong to the
//! process. Numbers stay in the file, and every proxy of the machine shares them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Messages of this package have a meaning of their own; only `Any` is looked into.
const WELL_KNOWN: &str = "google.protobuf.";
const ANY: &str = "google.protobuf.Any";

/// The Rust source of the table: `NAMES`, `MESSAGES` in the order of their full names, and `FIELDS`, which
/// are in the order of their numbers within each message.
pub(crate) fn source(descriptors: &FileDescriptorSet) -> Result<String, std::fmt::Error> {
    let all = all_messages(descriptors);
    let mut table = Table {
        index: all
            .iter()
            .filter(|(_, message)| !is_map_entry(message))
            .zip(0..)
            .map(|((name, _), index)| (name.as_str(), index))
            .collect(),
        entries: all
            .iter()
            .filter(|(_, message)| is_map_entry(message))
            .map(|(name, message)| (name.as_str(), *message))
            .collect(),
        names: Names::default(),
        messages: String::new(),
        fields: String::new(),
        field_count: 0,
    };
    for (name, message) in &all {
        if !is_map_entry(message) {
            table.message(name, message)?;
        }
    }
    Ok(format!(
        "pub(super) const NAMES: &str = {:?};\n\
         pub(super) static MESSAGES: [Message; {}] = [\n{}];\n\
         pub(super) static FIELDS: [Field; {}] = [\n{}];\n",
        table.names.text,
        table.index.len(),
        table.messages,
        table.field_count,
        table.fields
    ))
}

/// Every message by its full name, also the nested ones and the entries of maps.
fn all_messages(descriptors: &FileDescriptorSet) -> BTreeMap<String, &DescriptorProto> {
    let mut found = BTreeMap::new();
    for file in &descriptors.file {
        add_messages(&mut found, file.package(), &file.message_type);
    }
    found
}

fn add_messages<'a>(
    found: &mut BTreeMap<String, &'a DescriptorProto>,
    scope: &str,
    messages: &'a [DescriptorProto],
) {
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        add_messages(found, &name, &message.nested_type);
        found.insert(name, message);
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    let options = message.options.as_ref();
    options.is_some_and(|options| options.map_entry())
}

struct Table<'a> {
    /// Where each message will be; entries of maps are no messages of their own.
    index: HashMap<&'a str, usize>,
    entries: HashMap<&'a str, &'a DescriptorProto>,
    names: Names,
    messages: String,
    fields: String,
    field_count: usize,
}

impl Table<'_> {
    fn message(&mut self, name: &str, message: &DescriptorProto) -> std::fmt::Result {
        let contents = if name == ANY {
            "Contents::Any".to_owned()
        } else if name.starts_with(WELL_KNOWN) {
            "Contents::WellKnown".to_owned()
        } else {
            self.fields(message)?
        };
        let name = self.names.place(name);
        writeln!(
            self.messages,
            "Message {{ name: {name}, contents: {contents} }},"
        )
    }

    fn fields(&mut self, message: &DescriptorProto) -> Result<String, std::fmt::Error> {
        let first = self.field_count;
        let mut fields: Vec<_> = message.field.iter().collect();
        fields.sort_by_key(|field| field.number());
        for field in fields {
            let (number, shape) = (field.number(), self.shape(field));
            let name = self.names.place(field.name());
            writeln!(
                self.fields,
                "Field {{ number: {number}, name: {name}, shape: {shape} }},"
            )?;
            self.field_count += 1;
        }
        Ok(format!(
            "Contents::Fields {{ first: {first}, count: {} }}",
            message.field.len()
        ))
    }

    fn shape(&self, field: &FieldDescriptorProto) -> String {
        if field.r#type() != Type::Message {
            return "Shape::Scalar".to_owned();
        }
        let name = field.type_name().trim_start_matches('.');
        if let Some(entry) = self.entries.get(name) {
            let value = entry.field.iter().find(|field| field.number() == 2);
            return match value.filter(|value| value.r#type() == Type::Message) {
                Some(value) => format!("Shape::Map({})", self.index_of(value)),
                None => "Shape::ScalarMap".to_owned(),
            };
        }
        match field.label() {
            Label::Repeated => format!("Shape::List({})", self.index_of(field)),
            _ => format!("Shape::Message({})", self.index_of(field)),
        }
    }

    fn index_of(&self, field: &FieldDescriptorProto) -> usize {
        self.index[field.type_name().trim_start_matches('.')]
    }
}

/// All names in one text, each of them once.
#[derive(Default)]
struct Names {
    text: String,
    placed: HashMap<String, usize>,
}

impl Names {
    /// The source of a `Name` that stands for `name`.
    fn place(&mut self, name: &str) -> String {
        let start = *self.placed.entry(name.to_owned()).or_insert_with(|| {
            self.text.push_str(name);
            self.text.len() - name.len()
        });
        format!("Name {{ start: {start}, length: {} }}", name.len())
    }
}
