//! What values of messages must be beyond their types, as Envoy's API states it.
//!
//! [`crate::json`] asks when a configuration is read from a file: Envoy would refuse the same file. The rules
//! are those of `rules.txt`; they are read when somebody asks, and dropped afterwards.

mod rule;

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, ReflectMessage as _, Value};

use self::rule::Rule;
use crate::any::{Any, type_name};
use crate::path::{Path, Step};

/// Nesting, counted through every `Any`, below which nothing is looked at.
const MAX_DEPTH: usize = 100;

/// Messages of this package have a meaning of their own.
const WELL_KNOWN: &str = "google.protobuf";

/// A value that does not keep a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Where it is.
    pub(crate) path: String,
    /// What is asked of it.
    pub(crate) reason: String,
}

/// Looks at a message and all that is in it.
///
/// # Errors
/// The first value that does not keep a rule.
pub(crate) fn check(message: &DynamicMessage) -> Result<(), Violation> {
    Rules::read(TEXT).message(message, &Path::ROOT)
}

const TEXT: &str = include_str!("../rules.txt");

/// Rules by message, and there by field.
struct Rules(HashMap<&'static str, Vec<(&'static str, Vec<Rule>)>>);

impl Rules {
    fn read(text: &'static str) -> Self {
        let mut messages: HashMap<_, Vec<_>> = HashMap::new();
        let mut name = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("  ") {
                None => name = line,
                Some(rules) => {
                    let mut words = rules.split(' ');
                    let field = words.next().unwrap_or_default();
                    let rules = words.filter_map(Rule::read).collect();
                    messages.entry(name).or_default().push((field, rules));
                }
            }
        }
        Self(messages)
    }

    fn message(&self, message: &DynamicMessage, path: &Path<'_>) -> Result<(), Violation> {
        let descriptor = message.descriptor();
        if path.depth > MAX_DEPTH {
            return Ok(());
        }
        if descriptor.full_name() == "google.protobuf.Any" {
            return self.any(message, path);
        }
        if descriptor.package_name() == WELL_KNOWN {
            return Ok(());
        }
        let own = self.0.get(descriptor.full_name());
        for (name, rules) in own.into_iter().flatten() {
            match descriptor.get_field_by_name(name) {
                Some(field) => keeps(message, &field, rules, path)?,
                None => has_one(message, name, path)?,
            }
        }
        for (field, value) in message.fields() {
            self.within(&field, value, path)?;
        }
        Ok(())
    }

    /// What a field holds.
    fn within(
        &self,
        field: &FieldDescriptor,
        value: &Value,
        path: &Path<'_>,
    ) -> Result<(), Violation> {
        match value {
            Value::Message(inner) => self.message(inner, &path.child(Step::Field(field.name()))),
            Value::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    if let Value::Message(inner) = value {
                        let step = Step::Element(field.name(), index);
                        self.message(inner, &path.child(step))?;
                    }
                }
                Ok(())
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    if let (Some(key), Value::Message(inner)) = (key.as_str(), value) {
                        let step = Step::Entry(field.name(), key);
                        self.message(inner, &path.child(step))?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One of unknown type or malformed bytes is passed over: whoever needs it says so.
    fn any(&self, message: &DynamicMessage, path: &Path<'_>) -> Result<(), Violation> {
        let Ok(any) = message.transcode_to::<Any>() else {
            return Ok(());
        };
        let descriptor = message.descriptor();
        let pool = descriptor.parent_pool();
        let inner = pool
            .get_message_by_name(type_name(&any.type_url))
            .and_then(|inner| DynamicMessage::decode(inner, any.value).ok());
        match inner {
            Some(inner) => self.message(&inner, &path.child(Step::Inside)),
            None => Ok(()),
        }
    }
}

/// Whether a field keeps its rules. One that may be left out keeps all but `required` where it is.
fn keeps(
    message: &DynamicMessage,
    field: &FieldDescriptor,
    rules: &[Rule],
    path: &Path<'_>,
) -> Result<(), Violation> {
    let reason = if field.supports_presence() && !message.has_field(field) {
        // Of a member of a `oneof` it is asked where that is the one.
        let is_required = rules.contains(&Rule::Required) && field.containing_oneof().is_none();
        is_required.then(|| "is required".to_owned())
    } else {
        rule::broken(rules, &message.get_field(field), field)
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(Violation {
            path: path.child(Step::Field(field.name())).to_string(),
            reason,
        }),
    }
}

/// Whether a member of a `oneof` is there.
fn has_one(message: &DynamicMessage, name: &str, path: &Path<'_>) -> Result<(), Violation> {
    let descriptor = message.descriptor();
    let Some(choice) = descriptor.oneofs().find(|each| each.name() == name) else {
        return Ok(());
    };
    if choice.fields().any(|field| message.has_field(&field)) {
        return Ok(());
    }
    let members: Vec<_> = choice
        .fields()
        .map(|field| field.name().to_owned())
        .collect();
    Err(Violation {
        path: path.to_string(),
        reason: format!("one of {} is required", members.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor_pool;

    #[test]
    fn every_line_is_about_a_field_that_there_is_and_says_what_is_known() {
        let pool = descriptor_pool();
        let mut message = None;
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            let Some(rules) = line.strip_prefix("  ") else {
                message = pool.get_message_by_name(line);
                assert!(message.is_some() || line.is_empty(), "no message {line}");
                continue;
            };
            let message = message.as_ref().expect("a message before its fields");
            let mut words = rules.split(' ');
            let name = words.next().expect("a name");
            let is_there = message.get_field_by_name(name).is_some()
                || message.oneofs().any(|choice| choice.name() == name);
            assert!(is_there, "{} has no {name}", message.full_name());
            for word in words {
                assert!(Rule::read(word).is_some(), "{name}: what is {word:?}?");
            }
        }
    }
}
