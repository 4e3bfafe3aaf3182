//! One rule, and whether a value keeps it.

use crate::table::Field;
use crate::tree::{Held, Value};

/// What is asked of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// It is there.
    Required,
    /// Of its value.
    Value(Test),
    /// Nothing is asked of 0.
    OrZero,
    /// Members of a list, at least.
    Fewest(usize),
    /// Members of a list, at most.
    MostItems(usize),
    /// No member of a list comes twice.
    Unique,
    /// Of every member of a list.
    Each(Test),
}

/// What is asked of a single value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Test {
    /// Bytes of a text, at least.
    Shortest(usize),
    /// Bytes of a text, at most.
    Longest(usize),
    /// A text of one line.
    Line,
    /// A number, or seconds: more than this.
    Above(f64),
    /// At least this.
    Least(f64),
    /// Less than this.
    Below(f64),
    /// At most this.
    Most(f64),
    /// A value of its enumeration.
    Defined,
    /// `true`.
    True,
}

/// What is asked of what a field holds and is not so, if anything.
pub(super) fn broken(rules: &[Rule], held: &Held, field: &Field) -> Option<String> {
    let is_zero = matches!(held, Held::One(value) if number(value) == Some(0.0));
    if is_zero && rules.contains(&Rule::OrZero) {
        return None;
    }
    rules.iter().find_map(|rule| match held {
        Held::One(value) => match rule {
            Rule::Value(test) => of_one(test, value, field),
            _ => None,
        },
        Held::List(items) => of_list(rule, items, field),
        Held::Map(_) => None,
    })
}

fn of_list(rule: &Rule, items: &[Value], field: &Field) -> Option<String> {
    match rule {
        Rule::Fewest(count) if items.len() < *count => {
            Some(format!("has fewer than {count} members"))
        }
        Rule::MostItems(count) if items.len() > *count => {
            Some(format!("has more than {count} members"))
        }
        Rule::Unique => {
            let is_again = |(index, item): (usize, &Value)| items[..index].contains(item);
            let has_twice = items.iter().enumerate().any(is_again);
            has_twice.then(|| "has a member twice".to_owned())
        }
        Rule::Each(test) => items.iter().find_map(|item| of_one(test, item, field)),
        _ => None,
    }
}

fn of_one(test: &Test, value: &Value, field: &Field) -> Option<String> {
    let is_number = |is_so: fn(f64, f64) -> bool, bound: f64| {
        // What is no number is none of any size, either.
        number(value).is_some_and(|number| !is_so(number, bound))
    };
    let reason = match test {
        Test::Shortest(1) if text(value).is_some_and(<[u8]>::is_empty) => {
            "must not be empty".to_owned()
        }
        Test::Shortest(count) if text(value).is_some_and(|text| text.len() < *count) => {
            format!("is shorter than {count} bytes")
        }
        Test::Longest(count) if text(value).is_some_and(|text| text.len() > *count) => {
            format!("is longer than {count} bytes")
        }
        Test::Line if text(value).is_some_and(|text| text.iter().any(is_line_end)) => {
            "has a line break or a NUL in it".to_owned()
        }
        Test::Above(bound) if is_number(|number, bound| number > bound, *bound) => {
            format!("must be more than {}", told(*bound, value))
        }
        Test::Least(bound) if is_number(|number, bound| number >= bound, *bound) => {
            format!("must be {} or more", told(*bound, value))
        }
        Test::Below(bound) if is_number(|number, bound| number < bound, *bound) => {
            format!("must be less than {}", told(*bound, value))
        }
        Test::Most(bound) if is_number(|number, bound| number <= bound, *bound) => {
            format!("must be {} or less", told(*bound, value))
        }
        Test::Defined if !is_defined(value, field) => "is no value that there is".to_owned(),
        Test::True if *value == Value::Bool(false) => "must be true".to_owned(),
        _ => return None,
    };
    Some(reason)
}

fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\0' | b'\n' | b'\r')
}

fn is_defined(value: &Value, field: &Field) -> bool {
    let Value::Enum(number) = value else {
        return true;
    };
    let mut values = field.value().values().iter();
    values.any(|value| value.number() == *number)
}

/// A bound, with the unit that a duration has.
fn told(bound: f64, value: &Value) -> String {
    match value {
        Value::Duration(_) => format!("{bound}s"),
        _ => bound.to_string(),
    }
}

/// A number, one in its wrapper, or the seconds of a duration.
#[allow(
    clippy::cast_precision_loss,
    reason = "bounds are far below what a double tells apart"
)]
fn number(value: &Value) -> Option<f64> {
    Some(match value {
        Value::Double(number) => *number,
        Value::Float(number) => f64::from(*number),
        Value::Signed(number) => *number as f64,
        Value::Unsigned(number) => *number as f64,
        Value::Wrapped(_, inner) => number(inner)?,
        Value::Duration(duration) => duration.seconds as f64 + f64::from(duration.nanos) / 1e9,
        _ => return None,
    })
}

fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(text) => Some(text.as_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}
