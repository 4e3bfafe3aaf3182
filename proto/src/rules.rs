//! What values of messages must be beyond their types, as Envoy's API states it.
//!
//! [`crate::json`] asks when a configuration is read from a file: Envoy would refuse the same file. The rules
//! are those of `rules.txt`; the build script makes constants of them, as it does of [`crate::table`].

mod rule;

use self::rule::{Rule, Test};
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
    within_value(message, &Path::ROOT)
}

include!(concat!(env!("OUT_DIR"), "/rules.rs"));

/// What is asked of a message. Fields are told by their index among those of the message.
#[derive(Debug)]
enum Asked {
    /// That a field keeps these of `RULES`, from the first to before the last.
    Field { index: u16, rules: (u16, u16) },
    /// That a member is there of the `oneof` that this one is of.
    OneOf { member: u16 },
}

fn message(message: &Tree, path: &Path<'_>) -> Result<(), Violation> {
    if path.depth > MAX_DEPTH {
        return Ok(());
    }
    let fields = message.of.fields();
    for asked in ASKED.get(message.of.asked()).into_iter().flatten() {
        match *asked {
            Asked::Field { index, rules } => {
                let rules = &RULES[usize::from(rules.0)..usize::from(rules.1)];
                keeps(message, &fields[usize::from(index)], rules, path)?;
            }
            Asked::OneOf { member } => has_one(message, &fields[usize::from(member)], path)?,
        }
    }
    for (field, held) in message.fields() {
        within(field, held, path)?;
    }
    Ok(())
}

/// What a field holds.
fn within(field: &Field, held: &Held, path: &Path<'_>) -> Result<(), Violation> {
    match held {
        Held::One(value) => within_value(value, &path.child(Step::Field(field.name()))),
        Held::List(values) => {
            for (index, value) in values.iter().enumerate() {
                within_value(value, &path.child(Step::Element(field.name(), index)))?;
            }
            Ok(())
        }
        Held::Map(entries) => {
            for (key, value) in entries {
                within_value(value, &path.child(Step::Entry(field.name(), key)))?;
            }
            Ok(())
        }
    }
}

fn within_value(value: &Value, path: &Path<'_>) -> Result<(), Violation> {
    match value {
        Value::Message(inner) => message(inner, path),
        Value::Any { message, .. } => within_value(message, &path.child(Step::Inside)),
        _ => Ok(()),
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

/// Whether a member is there of the `oneof` that this one is of.
fn has_one(message: &Tree, member: &Field, path: &Path<'_>) -> Result<(), Violation> {
    let Some(choice) = member.choice().filter(|choice| !message.has_choice(choice)) else {
        return Ok(());
    };
    let members = message.of.fields().iter();
    let members = members.filter(|field| field.choice() == Some(choice));
    let members: Vec<_> = members.map(Field::name).collect();
    Err(Violation {
        path: path.to_string(),
        reason: format!("one of {} is required", members.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    const TEXT: &str = include_str!("../rules.txt");

    #[test]
    fn every_line_is_about_its_field() {
        let mut message = None;
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            let Some(rules) = line.strip_prefix("  ") else {
                message = table::message(line).map(|message| (message, message.asked()));
                continue;
            };
            let (message, asked) = message.as_mut().expect("a message before its fields");
            let mut words = rules.split(' ');
            let name = words.next();
            let field = |index: u16| &message.fields()[usize::from(index)];
            let (about, count) = match ASKED[asked.next().expect("something for each line")] {
                Asked::Field { index, rules } => (Some(field(index).name()), rules.1 - rules.0),
                Asked::OneOf { member } => (field(member).choice(), 1),
            };
            assert_eq!(about, name, "{}", message.name());
            assert_eq!(usize::from(count), words.count(), "{rules}");
        }
    }
}
