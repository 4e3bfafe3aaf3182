//! Writes the table of messages and fields that `src/table.rs` reads: constants without a pointer in them.
//!
//! A pointer would have to be relocated when the program is loaded, and its page would then belong to the
//! process. Numbers stay in the file, and every proxy of the machine shares them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::rules::Rules;

/// Messages of this package have a meaning of their own; only `Any` is looked into.
const WELL_KNOWN: &str = "google.protobuf.";
const ANY: &str = "google.protobuf.Any";

/// The Rust source of the table: `NAMES`, `MESSAGES` in the order of their full names, `FIELDS`, which are in the order of
/// their numbers within each message, and `ENUMS` with their `VALUES`, as declared.
pub(crate) fn source(
    descriptors: &FileDescriptorSet,
    rules: &Rules,
) -> Result<String, std::fmt::Error> {
    let all = all_messages(descriptors);
    let enums = all_enums(descriptors);
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
        enum_index: enums.keys().map(String::as_str).zip(0..).collect(),
        rules,
        names: Names::default(),
        messages: String::new(),
        fields: String::new(),
        field_count: 0,
        enums: String::new(),
        values: String::new(),
        value_count: 0,
    };
    for (name, message) in &all {
        if !is_map_entry(message) {
            table.message(name, message)?;
        }
    }
    for values in enums.values() {
        table.values(values)?;
    }
    Ok(format!(
        "pub(super) const NAMES: &str = {:?};\n\
         pub(super) static MESSAGES: [Message; {}] = [\n{}];\n\
         pub(super) static FIELDS: [Field; {}] = [\n{}];\n\
         pub(super) static ENUMS: [Enum; {}] = [\n{}];\n\
         pub(super) static VALUES: [EnumValue; {}] = [\n{}];\n",
        table.names.text,
        table.index.len(),
        table.messages,
        table.field_count,
        table.fields,
        enums.len(),
        table.enums,
        table.value_count,
        table.values
    ))
}

/// Every message by its full name, also the nested ones and the entries of maps.
pub(crate) fn all_messages(descriptors: &FileDescriptorSet) -> BTreeMap<String, &DescriptorProto> {
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

/// Every enumeration by its full name, also those nested in messages.
fn all_enums(descriptors: &FileDescriptorSet) -> BTreeMap<String, &EnumDescriptorProto> {
    let mut found = BTreeMap::new();
    for file in &descriptors.file {
        add_enums(&mut found, file.package(), &file.enum_type);
    }
    for (name, message) in all_messages(descriptors) {
        add_enums(&mut found, &name, &message.enum_type);
    }
    found
}

fn add_enums<'a>(
    found: &mut BTreeMap<String, &'a EnumDescriptorProto>,
    scope: &str,
    enums: &'a [EnumDescriptorProto],
) {
    for each in enums {
        found.insert(format!("{scope}.{}", each.name()), each);
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    let options = message.options.as_ref();
    options.is_some_and(|options| options.map_entry())
}

/// The fields of a message in the order of their numbers.
pub(crate) fn by_number(message: &DescriptorProto) -> Vec<&FieldDescriptorProto> {
    let mut fields: Vec<_> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    fields
}

struct Table<'a> {
    /// Where each message will be; entries of maps are no messages of their own.
    index: HashMap<&'a str, usize>,
    entries: HashMap<&'a str, &'a DescriptorProto>,
    /// Where each enumeration will be.
    enum_index: HashMap<&'a str, usize>,
    rules: &'a Rules,
    names: Names,
    messages: String,
    fields: String,
    field_count: usize,
    enums: String,
    values: String,
    value_count: usize,
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
        let asked = self.rules.of(name);
        let (first, end) = (asked.start, asked.end);
        let name = self.names.place(name);
        writeln!(
            self.messages,
            "Message {{ name: {name}, contents: {contents}, asked: ({first}, {end}) }},"
        )
    }

    fn fields(&mut self, message: &DescriptorProto) -> Result<String, std::fmt::Error> {
        let first = self.field_count;
        for field in by_number(message) {
            let (number, label) = (field.number(), self.label(field));
            let (name, value) = (self.names.place(field.name()), self.value(field));
            let choice = field.oneof_index.and_then(|index| {
                let index = usize::try_from(index).ok()?;
                message.oneof_decl.get(index)
            });
            let choice = self.names.place(choice.map_or("", |choice| choice.name()));
            writeln!(
                self.fields,
                "Field {{ number: {number}, name: {name}, choice: {choice}, label: {label}, value: {value} }},"
            )?;
            self.field_count += 1;
        }
        Ok(format!(
            "Contents::Fields {{ first: {first}, count: {} }}",
            message.field.len()
        ))
    }

    fn label(&self, field: &FieldDescriptorProto) -> &'static str {
        match field.label() {
            _ if self.entry(field).is_some() => "Label::Map",
            Label::Repeated => "Label::List",
            _ => "Label::One",
        }
    }

    /// What it is, each of its members, or each of its values.
    fn value(&self, field: &FieldDescriptorProto) -> String {
        let entry = self.entry(field);
        let value = entry.and_then(|entry| entry.field.iter().find(|field| field.number() == 2));
        let field = value.unwrap_or(field);
        match field.r#type() {
            Type::Message | Type::Group => format!("Type::Message({})", self.index_of(field)),
            Type::Enum => {
                let name = field.type_name().trim_start_matches('.');
                format!("Type::Enum({})", self.enum_index[name])
            }
            scalar => format!("Type::{scalar:?}"),
        }
    }

    /// The message that the entries of a map are.
    fn entry(&self, field: &FieldDescriptorProto) -> Option<&DescriptorProto> {
        let name = field.type_name().trim_start_matches('.');
        self.entries.get(name).copied()
    }

    fn values(&mut self, declared: &EnumDescriptorProto) -> std::fmt::Result {
        let (first, count) = (self.value_count, declared.value.len());
        writeln!(self.enums, "Enum {{ first: {first}, count: {count} }},")?;
        for value in &declared.value {
            let (number, name) = (value.number(), self.names.place(value.name()));
            writeln!(
                self.values,
                "EnumValue {{ number: {number}, name: {name} }},"
            )?;
        }
        self.value_count += count;
        Ok(())
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
