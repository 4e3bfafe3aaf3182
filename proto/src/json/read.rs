//! JSON as a tree: messages, their fields, and what is in an `Any`.

use serde::de::{Error as _, Unexpected};
use serde_json::{Error, Map, Value as Json};

use super::{MAX_DEPTH, known, scalar};
use crate::path::{Path, Step};
use crate::table::{self, Contents, Field, Label, Message, Type};
use crate::tree::{Held, Tree, Value};

/// Why JSON is no message.
pub(super) struct Refused {
    /// The message that it is in, from the top: `.` is the top itself.
    pub(super) path: String,
    /// What is wrong there.
    pub(super) source: Error,
}

/// The message that some JSON stands for.
pub(super) fn message(of: &'static Message, json: &Json) -> Result<Value, Refused> {
    any_message(of, json, &Path::ROOT)
}

/// Its fields, but for the one of this name.
fn fields(
    of: &'static Message,
    entries: &Map<String, Json>,
    but: &str,
    path: &Path<'_>,
) -> Result<Tree, Refused> {
    if path.depth > MAX_DEPTH {
        return Err(path.refused(Error::custom("nested too deeply")));
    }
    let mut tree = Tree::new(of);
    for (name, json) in entries.iter().filter(|entry| entry.0 != but) {
        let Some(field) = of.field_of_name(name) else {
            return Err(path.no_field(name));
        };
        if json.is_null() && !is_value(field.value()) {
            continue;
        }
        let held = held(field, name, json, path)?;
        if let Some(choice) = field.choice().filter(|choice| tree.has_choice(choice)) {
            let text = format!("multiple fields provided for oneof '{choice}'");
            return Err(path.refused(Error::custom(text)));
        }
        tree.set(field, held);
    }
    Ok(tree)
}

/// Whether null is a value of it, where elsewhere it says that there is none.
fn is_value(value: Type) -> bool {
    let message = value.message();
    message.is_some_and(|message| message.name() == "google.protobuf.Value")
}

fn held(field: &Field, name: &str, json: &Json, path: &Path<'_>) -> Result<Held, Refused> {
    let value_type = field.value();
    match field.label() {
        Label::One => {
            let path = path.child(Step::Field(name));
            value(value_type, json, &path).map(Held::One)
        }
        Label::List => {
            let Json::Array(members) = json else {
                let path = path.child(Step::Field(name));
                return Err(path.refused(mismatch(json, "a list")));
            };
            let members = members.iter().enumerate().map(|(index, json)| {
                let path = path.child(Step::Element(name, index));
                value(value_type, json, &path)
            });
            members.collect::<Result<_, _>>().map(Held::List)
        }
        Label::Map => {
            let entries = object(json, &path.child(Step::Field(name)))?;
            let entries = entries.iter().map(|(key, json)| {
                let path = path.child(Step::Entry(name, key));
                value(value_type, json, &path).map(|value| (key.clone(), value))
            });
            entries.collect::<Result<_, _>>().map(Held::Map)
        }
    }
}

fn value(value_type: Type, json: &Json, path: &Path<'_>) -> Result<Value, Refused> {
    match value_type.message() {
        Some(of) => any_message(of, json, path),
        None => scalar::read(value_type, json).map_err(|source| path.refused(source)),
    }
}

fn any_message(of: &'static Message, json: &Json, path: &Path<'_>) -> Result<Value, Refused> {
    match of.contents() {
        Contents::Fields { .. } => fields(of, object(json, path)?, "", path).map(Value::Message),
        Contents::Any => any(json, path),
        Contents::WellKnown => known::read(of.name(), json).map_err(|source| path.refused(source)),
    }
}

/// An `Any`: the fields of a message beside `@type`, or one of `google.protobuf` as `value`.
fn any(json: &Json, path: &Path<'_>) -> Result<Value, Refused> {
    let entries = object(json, path)?;
    let missing = |name: &str| path.refused(Error::custom(format!("expected '{name}' field")));
    let type_url = match entries.get("@type") {
        Some(Json::String(type_url)) => type_url,
        Some(other) => {
            let path = path.child(Step::Field("@type"));
            return Err(path.refused(mismatch(other, "a string")));
        }
        None => return Err(missing("@type")),
    };
    let Some((_, name)) = type_url.rsplit_once('/') else {
        let text = format!("unsupported type url '{type_url}': missing at least one '/'");
        return Err(path.refused(Error::custom(text)));
    };
    let Some(of) = table::message(name) else {
        return Err(path.refused(Error::custom(format!("'{name}' is not supported"))));
    };
    let inside = path.child(Step::Inside);
    let message = if let Contents::Fields { .. } = of.contents() {
        fields(of, entries, "@type", &inside).map(Value::Message)?
    } else {
        let mut others = entries.keys();
        if let Some(other) = others.find(|name| !matches!(name.as_str(), "@type" | "value")) {
            return Err(path.no_field(other));
        }
        let json = entries.get("value").ok_or_else(|| missing("value"))?;
        any_message(of, json, &inside)?
    };
    Ok(Value::Any {
        type_url: type_url.clone(),
        message: Box::new(message),
    })
}

fn object<'a>(json: &'a Json, path: &Path<'_>) -> Result<&'a Map<String, Json>, Refused> {
    match json {
        Json::Object(entries) => Ok(entries),
        other => Err(path.refused(mismatch(other, "a map"))),
    }
}

/// That a value is of another type than it should be.
pub(super) fn mismatch(json: &Json, expected: &str) -> Error {
    let found = match json {
        Json::Null => Unexpected::Unit,
        Json::Bool(flag) => Unexpected::Bool(*flag),
        Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => Unexpected::Unsigned(number),
            (_, Some(number), _) => Unexpected::Signed(number),
            (.., number) => Unexpected::Float(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Unexpected::Str(text),
        Json::Array(_) => Unexpected::Seq,
        Json::Object(_) => Unexpected::Map,
    };
    Error::invalid_type(found, &expected)
}

impl Path<'_> {
    fn refused(&self, source: Error) -> Refused {
        let path = match self.to_string() {
            path if path.is_empty() => ".".to_owned(),
            path => path,
        };
        Refused { path, source }
    }

    /// Says of what is not known that weft does not know it: it may well be Envoy's.
    fn no_field(&self, name: &str) -> Refused {
        let text = format!("there is no field '{name}', or it is not supported");
        self.refused(Error::custom(text))
    }
}

#[cfg(test)]
mod tests;
