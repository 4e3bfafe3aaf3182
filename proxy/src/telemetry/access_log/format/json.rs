//! JSON values with operators in them.

use serde_json::{Map, Value as Json};

use super::super::operator::{Subject, Value};
use super::{InvalidFormat, Missing, Template};

/// A JSON value whose texts hold operators.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JsonTemplate {
    /// Not a text.
    Literal(Json),
    /// A text.
    Text(Template),
    /// An array.
    Array(Vec<JsonTemplate>),
    /// An object, in order.
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
                    .map(|(name, value)| Ok((name.clone(), Self::parse(value)?)))
                    .collect::<Result<_, InvalidFormat>>()?,
            ),
            other => JsonTemplate::Literal(other.clone()),
        })
    }

    /// On one line.
    pub(super) fn text(&self, subject: Subject<'_>, missing: Missing) -> String {
        let value = self.value(subject, missing);
        value
            .unwrap_or_else(|| Json::Object(Map::new()))
            .to_string()
    }

    /// `None` where it is missing, and what is missing is left out.
    fn value(&self, subject: Subject<'_>, missing: Missing) -> Option<Json> {
        let value = match self {
            JsonTemplate::Literal(json) => json.clone(),
            JsonTemplate::Text(template) => match template.only_operator() {
                Some(operator) => json_value(operator.value(subject)),
                None => {
                    let mut text = String::new();
                    template.write_with(subject, missing.in_text(), &mut text);
                    Json::String(text)
                }
            },
            JsonTemplate::Array(values) => values
                .iter()
                .filter_map(|value| value.value(subject, missing))
                .collect(),
            JsonTemplate::Object(fields) => Json::Object(
                fields
                    .iter()
                    .filter_map(|(name, value)| {
                        Some((name.clone(), value.value(subject, missing)?))
                    })
                    .collect::<Map<_, _>>(),
            ),
        };
        let is_left_out = missing == Missing::LeftOut && is_nothing(&value);
        (!is_left_out).then_some(value)
    }

    pub(super) fn needs_request_headers(&self) -> bool {
        match self {
            JsonTemplate::Literal(_) => false,
            JsonTemplate::Text(template) => template.needs_request_headers(),
            JsonTemplate::Array(values) => values.iter().any(Self::needs_request_headers),
            JsonTemplate::Object(fields) => fields
                .iter()
                .any(|(_, value)| value.needs_request_headers()),
        }
    }
}

/// What Envoy leaves out, too: `null`, and objects of nothing else; not lists.
fn is_nothing(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn json_value(value: Value<'_>) -> Json {
    match value {
        Value::Missing => Json::Null,
        Value::Number(number) => number.into(),
        Value::Text(text) => Json::String(text.into_owned()),
    }
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

        let line = format.line(Entry::Request(&request()));

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

        let line = format.line(Entry::Request(&request()));

        let value: Json = serde_json::from_str(&line).expect("json");
        assert_eq!(value, json!({"code": 200, "text": ".", "list": [1, []]}));
    }
}
