//! JSON values with operators in them.

use serde_json::Value as Json;

use super::super::operator::value::Value;
use super::super::operator::{Operator, Subject};
use super::{InvalidFormat, Missing, Template};

/// A JSON value whose texts hold operators.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JsonTemplate {
    /// Not a text: as JSON.
    Literal(String),
    /// `null`.
    Null,
    /// A text.
    Text(Template),
    /// An array.
    Array(Vec<JsonTemplate>),
    /// An object, in order; names are JSON.
    Object(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    pub(super) fn parse(json: &Json) -> Result<Self, InvalidFormat> {
        Ok(match json {
            Json::String(text) => JsonTemplate::Text(Template::parse(text)?),
            Json::Array(values) => {
                JsonTemplate::Array(values.iter().map(Self::parse).collect::<Result<_, _>>()?)
            }
            Json::Object(fields) => JsonTemplate::Object(
                fields
                    .iter()
                    .map(|(name, value)| Ok((quoted(name), Self::parse(value)?)))
                    .collect::<Result<_, InvalidFormat>>()?,
            ),
            Json::Null => JsonTemplate::Null,
            other => JsonTemplate::Literal(other.to_string()),
        })
    }

    /// Writes it on the line.
    pub(super) fn write(&self, subject: Subject<'_>, missing: Missing, line: &mut String) {
        if !self.is_written(subject, missing, line) {
            line.push_str("{}");
        }
    }

    /// Writes it, unless it is nothing, and nothing is left out: then the line is as it was.
    fn is_written(&self, subject: Subject<'_>, missing: Missing, line: &mut String) -> bool {
        let start = line.len();
        let is_something = match self {
            JsonTemplate::Literal(json) => {
                line.push_str(json);
                true
            }
            JsonTemplate::Null => write_value(&Value::Missing, line),
            JsonTemplate::Text(template) => match template.only_operator() {
                Some(operator) => write_value(&operator.value(subject), line),
                None => {
                    write_quoted(line, |line| {
                        template.write_with(subject, missing.in_text(), line);
                    });
                    true
                }
            },
            JsonTemplate::Array(values) => {
                let values = values.iter().map(|value| ("", value));
                write_all(('[', ']'), values, line, |value, line| {
                    value.is_written(subject, missing, line)
                });
                true
            }
            JsonTemplate::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.as_str(), value));
                write_all(('{', '}'), fields, line, |value, line| {
                    value.is_written(subject, missing, line)
                })
            }
        };
        // As in Envoy: `null`, and objects of nothing else; not lists.
        let is_left_out = missing == Missing::LeftOut && !is_something;
        if is_left_out {
            line.truncate(start);
        }
        !is_left_out
    }

    pub(super) fn has(&self, is_such: fn(&Operator) -> bool) -> bool {
        match self {
            JsonTemplate::Literal(_) | JsonTemplate::Null => false,
            JsonTemplate::Text(template) => template.has(is_such),
            JsonTemplate::Array(values) => values.iter().any(|value| value.has(is_such)),
            JsonTemplate::Object(fields) => fields.iter().any(|(_, value)| value.has(is_such)),
        }
    }
}

/// Writes what an array or an object has, each with its name where it has one; says whether it has anything.
fn write_all<'a>(
    (open, close): (char, char),
    all: impl Iterator<Item = (&'a str, &'a JsonTemplate)>,
    line: &mut String,
    write: impl Fn(&JsonTemplate, &mut String) -> bool,
) -> bool {
    let mut is_empty = true;
    line.push(open);
    for (name, value) in all {
        let before = line.len();
        if !is_empty {
            line.push(',');
        }
        if !name.is_empty() {
            line.push_str(name);
            line.push(':');
        }
        match write(value, line) {
            true => is_empty = false,
            false => line.truncate(before),
        }
    }
    line.push(close);
    !is_empty
}

/// Writes a value by its type; says whether there is one.
fn write_value(value: &Value<'_>, line: &mut String) -> bool {
    match value {
        Value::Missing => line.push_str("null"),
        Value::Number(_) => value.write(line),
        value => write_quoted(line, |line| value.write(line)),
    }
    *value != Value::Missing
}

/// Writes a text in quotes.
fn write_quoted(line: &mut String, write: impl FnOnce(&mut String)) {
    line.push('"');
    let start = line.len();
    write(line);
    let is_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if line.as_bytes()[start..].iter().copied().any(is_escaped) {
        let text = line.split_off(start);
        line.pop();
        line.push_str(&quoted(&text));
    } else {
        line.push('"');
    }
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::super::testing::request;
    use super::super::Format;
    use super::*;
    use crate::config::access_log::AccessLogFormat;
    use crate::telemetry::access_log::operator::Entry;

    #[test]
    fn json_keeps_numbers_and_says_what_is_missing() {
        let format = json!({
            "code": "%RESPONSE_CODE%",
            "who": "%REQ(:METHOD)% by %DOWNSTREAM_PEER_URI_SAN%",
            "san": "%DOWNSTREAM_PEER_URI_SAN%",
            "list": [1, "%ROUTE_NAME%"],
        });
        let format = Format::new(&AccessLogFormat::Json(format.into())).expect("a format");

        let line = format.text(Entry::Request(&request()).into());

        let value: Json = serde_json::from_str(&line).expect("json");
        assert_eq!(
            value,
            json!({"code": 200, "who": "GET by -", "san": null, "list": [1, "all"]})
        );
        assert!(line.ends_with('\n'));
    }

    #[test]
    fn what_is_missing_can_be_left_out() {
        let format = json!({
            "code": "%RESPONSE_CODE%",
            "none": "%REQ(x-none)%",
            "text": "%REQ(x-none)%.%REQ(x-none)%",
            "object": {"none": "%REQ(x-none)%", "null": null},
            "list": ["%REQ(x-none)%", 1, []],
        });
        let format = Format::new(&AccessLogFormat::Json(format.into())).expect("a format");
        let format = format.with_missing(Missing::LeftOut);

        let line = format.text(Entry::Request(&request()).into());

        let value: Json = serde_json::from_str(&line).expect("json");
        assert_eq!(value, json!({"code": 200, "text": ".", "list": [1, []]}));
    }

    #[test]
    fn what_a_client_says_stays_a_text() {
        let mut report = request();
        report.user_agent = Some(http::HeaderValue::from_static("a \"b\"\t\\"));
        let format =
            json!({"a \"name\"": "%REQ(USER-AGENT)%", "two": "%REQ(USER-AGENT)% %PROTOCOL%"});
        let format = Format::new(&AccessLogFormat::Json(format.into())).expect("a format");

        let line = format.text(Entry::Request(&report).into());

        let value: Json = serde_json::from_str(&line).expect("json");
        let told = json!({"a \"name\"": "a \"b\"\t\\", "two": "a \"b\"\t\\ HTTP/1.1"});
        assert_eq!(value, told);
    }
}
