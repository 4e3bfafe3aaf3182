//! What values of messages must be beyond their types, as Envoy's API states it.
//!
//! [`crate::json`] asks when a configuration is read from a file: Envoy would refuse the same file. The rules
//! are those of `rules.txt`; they are read when somebody asks, and dropped afterwards.

mod rule;

use std::collections::HashMap;

use self::rule::Rule;
use crate::path::{Path, Step};
use crate::table::Field;
use crate::tree::{Held, Tree, Value};

/// Nesting, counted through every `Any`, below which nothing is looked at.
const MAX_DEPTH: usize = 100;

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
pub(crate) fn check(message: &Value) -> Result<(), Violation> {
    Rules::read(TEXT).value(message, &Path::ROOT)
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

    fn message(&self, message: &Tree, path: &Path<'_>) -> Result<(), Violation> {
        if path.depth > MAX_DEPTH {
            return Ok(());
        }
        let own = self.0.get(message.of.name());
        for (name, rules) in own.into_iter().flatten() {
            match message.of.field_of_name(name) {
                Some(field) => keeps(message, field, rules, path)?,
                None => has_one(message, name, path)?,
            }
        }
        for (field, held) in message.fields() {
            self.within(field, held, path)?;
        }
        Ok(())
    }

    /// What a field holds.
    fn within(&self, field: &Field, held: &Held, path: &Path<'_>) -> Result<(), Violation> {
        match held {
            Held::One(value) => self.value(value, &path.child(Step::Field(field.name()))),
            Held::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.value(value, &path.child(Step::Element(field.name(), index)))?;
                }
                Ok(())
            }
            Held::Map(entries) => {
                for (key, value) in entries {
                    self.value(value, &path.child(Step::Entry(field.name(), key)))?;
                }
                Ok(())
            }
        }
    }

    fn value(&self, value: &Value, path: &Path<'_>) -> Result<(), Violation> {
        match value {
            Value::Message(inner) => self.message(inner, path),
            Value::Any { message, .. } => self.value(message, &path.child(Step::Inside)),
            _ => Ok(()),
        }
    }
}

/// Whether a field keeps its rules. One that may be left out keeps all but `required` where it is.
fn keeps(
    message: &Tree,
    field: &'static Field,
    rules: &[Rule],
    path: &Path<'_>,
) -> Result<(), Violation> {
    let reason = match message.get(field) {
        Some(held) => rule::broken(rules, held, field),
        None if field.has_presence() => {
            // Of a member of a `oneof` it is asked where that is the one.
            let is_required = rules.contains(&Rule::Required) && field.choice().is_none();
            is_required.then(|| "is required".to_owned())
        }
        None => rule::broken(rules, &Held::nothing(field), field),
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
fn has_one(message: &Tree, name: &str, path: &Path<'_>) -> Result<(), Violation> {
    let fields = message.of.fields().iter();
    let members: Vec<_> = fields
        .filter(|field| field.choice() == Some(name))
        .map(Field::name)
        .collect();
    if members.is_empty() || message.has_choice(name) {
        return Ok(());
    }
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
