//! Templates: texts and JSON values with Envoy's command operators in them.
//!
//! Access-log lines, headers that routes set, and bodies of local answers are all made here.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

use super::operator::{Entry, InvalidOperator, Operator, Subject, Value};
use crate::config::access_log::AccessLogFormat;

/// Envoy's default text.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// How a line looks.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// A text, with its line end.
    Text(Template),
    /// A JSON value on a line.
    Json(JsonTemplate),
}

/// A text with operators in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(String),
    /// The operator, and how many characters of its value are written at most.
    Operator(Operator, Option<usize>),
}

/// A JSON value whose texts hold operators.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonTemplate {
    /// Not a text.
    Literal(Json),
    /// A text.
    Text(Template),
    /// An array.
    Array(Vec<JsonTemplate>),
    /// An object, in order.
    Object(Vec<(String, JsonTemplate)>),
}

/// Why a format is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFormat {
    /// One of its operators is none.
    #[error(transparent)]
    Operator(#[from] InvalidOperator),
    /// A percent sign has no partner; `%%` is one percent sign.
    #[error("a percent sign without a partner in {0:?}")]
    Unterminated(String),
}

impl Format {
    /// Parses a format once, before the first line.
    pub fn new(format: &AccessLogFormat) -> Result<Self, InvalidFormat> {
        Ok(match format {
            AccessLogFormat::Default => Format::Text(Template::parse(DEFAULT_FORMAT)?),
            AccessLogFormat::Text(text) => Format::Text(Template::parse(text)?),
            AccessLogFormat::Json(json) => Format::Json(JsonTemplate::parse(json)?),
        })
    }

    /// The line about an exchange, with its end.
    pub fn line(&self, entry: Entry<'_>) -> String {
        let subject = entry.into();
        match self {
            Format::Text(_) => self.body(subject),
            Format::Json(_) => {
                let mut line = self.body(subject);
                line.push('\n');
                line
            }
        }
    }

    /// The same without a line's end.
    pub fn body(&self, subject: Subject<'_>) -> String {
        match self {
            Format::Text(template) => {
                let mut text = String::with_capacity(256);
                template.write(subject, &mut text);
                text
            }
            Format::Json(template) => template.value(subject).to_string(),
        }
    }
}

impl Template {
    /// Finds the operators of a text.
    pub fn parse(text: &str) -> Result<Self, InvalidFormat> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            push_literal(&mut pieces, &rest[..start]);
            rest = &rest[start + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                push_literal(&mut pieces, "%");
                rest = after;
                continue;
            }
            let end =
                operator_end(rest).ok_or_else(|| InvalidFormat::Unterminated(text.to_owned()))?;
            pieces.push(operator(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        push_literal(&mut pieces, rest);
        Ok(Self(pieces))
    }

    /// A text as it is, percent signs and all.
    pub fn plain(text: &str) -> Self {
        let mut pieces = Vec::new();
        push_literal(&mut pieces, text);
        Self(pieces)
    }

    /// Whether it has operators.
    pub fn has_operators(&self) -> bool {
        let is_operator = |piece: &Piece| matches!(piece, Piece::Operator(..));
        self.0.iter().any(is_operator)
    }

    /// Its text where there are no operators.
    pub fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// What it comes to; what is missing is nothing. As in Envoy for headers and paths.
    pub fn text(&self, subject: Subject<'_>) -> String {
        let mut text = String::new();
        self.write_with(subject, "", &mut text);
        text
    }

    /// What it comes to in a log or a body: what is missing is a dash.
    pub fn write(&self, subject: Subject<'_>, line: &mut String) {
        self.write_with(subject, "-", line);
    }

    fn write_with(&self, subject: Subject<'_>, missing: &str, line: &mut String) {
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => line.push_str(text),
                Piece::Operator(operator, limit) => {
                    write_value(&operator.value(subject), *limit, missing, line)
                }
            }
        }
    }

    /// The only operator, where there is nothing else: its JSON value keeps its type.
    fn only_operator(&self) -> Option<&Operator> {
        match self.0.as_slice() {
            [Piece::Operator(operator, None)] => Some(operator),
            _ => None,
        }
    }
}

impl JsonTemplate {
    fn parse(json: &Json) -> Result<Self, InvalidFormat> {
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

    fn value(&self, subject: Subject<'_>) -> Json {
        match self {
            JsonTemplate::Literal(json) => json.clone(),
            JsonTemplate::Text(template) => match template.only_operator() {
                Some(operator) => json_value(operator.value(subject)),
                None => {
                    let mut text = String::new();
                    template.write(subject, &mut text);
                    Json::String(text)
                }
            },
            JsonTemplate::Array(values) => {
                values.iter().map(|value| value.value(subject)).collect()
            }
            JsonTemplate::Object(fields) => Json::Object(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), value.value(subject)))
                    .collect::<Map<_, _>>(),
            ),
        }
    }
}

/// The closing percent sign: the first outside of parentheses, whose argument may hold percent signs itself.
fn operator_end(text: &str) -> Option<usize> {
    let is_inside = |at: usize| text[..at].contains('(') && !text[..at].contains(')');
    text.match_indices('%')
        .map(|(at, _)| at)
        .find(|at| !is_inside(*at))
}

/// An operator with an optional length: `REQ(NAME):10`.
fn operator(text: &str) -> Result<Piece, InvalidFormat> {
    let (word, limit) = match text.rsplit_once(':') {
        Some((word, digits)) if !word.ends_with('(') => match digits.parse() {
            Ok(limit) => (word, Some(limit)),
            Err(_) => (text, None),
        },
        _ => (text, None),
    };
    let operator = Operator::parse(word)?;
    match limit.is_none() || operator.takes_length() {
        true => Ok(Piece::Operator(operator, limit)),
        false => Err(InvalidOperator::Length(word.to_owned()).into()),
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Literal(last)) => last.push_str(text),
        _ => pieces.push(Piece::Literal(text.to_owned())),
    }
}

fn write_value(value: &Value<'_>, limit: Option<usize>, missing: &str, line: &mut String) {
    let limit = limit.unwrap_or(usize::MAX);
    match value {
        Value::Missing => line.push_str(missing),
        Value::Text(text) if text.len() > limit => line.extend(text.chars().take(limit)),
        Value::Text(text) => line.push_str(text),
        Value::Number(number) => {
            // Writing to a String cannot fail.
            let _ = write!(line, "{number}");
        }
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
    use http::{HeaderMap, HeaderValue};
    use serde_json::json;

    use super::super::super::testing::{connection, request, upstream};
    use super::*;

    fn text(format: &str) -> String {
        let mut report = request();
        report.upstream = Some(upstream());
        let format = Format::new(&AccessLogFormat::Text(format.into())).expect("a format");
        format.line(Entry::Request(&report))
    }

    #[test]
    fn a_request_is_written_in_envoys_default_format() {
        let mut report = request();
        report.upstream = Some(upstream());

        let line = Format::new(&AccessLogFormat::Default)
            .expect("a format")
            .line(Entry::Request(&report));

        assert_eq!(
            line,
            "[2001-09-09T01:46:40.123Z] \"GET /reviews/1?full=yes HTTP/1.1\" 200 - 0 357 12 9 \
             \"-\" \"curl/8\" \"4f6c\" \"reviews:9080\" \"10.96.0.7:15006\"\n"
        );
    }

    #[test]
    fn a_connection_is_written_in_envoys_default_format() {
        let line = Format::new(&AccessLogFormat::Default)
            .expect("a format")
            .line(Entry::Connection(&connection()));

        assert_eq!(
            line,
            "[2001-09-09T01:46:40.123Z] \"- - -\" 0 - 10 20 1500 - \
             \"-\" \"-\" \"-\" \"-\" \"10.96.0.7:15006\"\n"
        );
    }

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
    fn the_status_is_a_header_of_a_response_as_well() {
        assert_eq!(text("%RESP(:STATUS)% %RESP(X-NONE?:status)%"), "200 200");
    }

    #[test]
    fn operators_take_arguments_alternatives_and_lengths() {
        assert_eq!(text("%START_TIME(%Y/%m)% 100%%"), "2001/09 100%");
        assert_eq!(text("%REQ(X-MISSING?USER-AGENT):4%"), "curl");
        assert_eq!(text("%UPSTREAM_CLUSTER%"), "outbound|9080||reviews.default");
    }

    #[test]
    fn times_of_a_request_are_written() {
        assert_eq!(text("%REQUEST_DURATION%"), "3");
        assert_eq!(text("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"), "12000");
        assert_eq!(text("%COMMON_DURATION(DS_RX_END:DS_TX_END:ms)%"), "9");
        assert_eq!(text("%COMMON_DURATION(DS_TX_END:DS_RX_BEG:ms)%"), "-");
        let year: u32 = text("%EMIT_TIME(%Y)%").parse().expect("a year");
        assert!(year > 2024, "{year}");
    }

    #[test]
    fn connections_of_either_side_are_written() {
        assert_eq!(text("%CONNECTION_ID%"), "7");
        assert_eq!(text("%UPSTREAM_PROTOCOL%"), "HTTP/2");
        assert_eq!(text("%UPSTREAM_LOCAL_ADDRESS%"), "10.96.0.5:50000");
        assert_eq!(text("%UPSTREAM_LOCAL_PORT%"), "50000");
        assert_eq!(
            text("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_SUBJECT%"),
            "- -"
        );
        assert_ne!(text("%UNIQUE_ID%"), text("%UNIQUE_ID%"));
    }

    #[test]
    fn a_kept_trailer_is_written() {
        let mut report = request();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        report.response_trailers = Some(Box::new(trailers));
        let text = AccessLogFormat::Text("%TRAILER(X-SUM)% %TRAILER(X-NONE?X-SUM)%".into());
        let format = Format::new(&text).expect("a format");

        assert_eq!(format.line(Entry::Request(&report)), "7 7");
    }

    #[test]
    fn a_kept_header_is_written() {
        let mut report = request();
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("jane"));
        report.request_headers = Some(Box::new(headers));
        let format = Format::new(&AccessLogFormat::Text("%REQ(X-USER)%".into())).expect("a format");

        assert_eq!(format.line(Entry::Request(&report)), "jane");
    }

    #[test]
    fn a_format_with_a_mistake_is_refused_by_what_is_wrong() {
        for (format, error) in [
            (
                "%NONSENSE%",
                "%NONSENSE% is no command operator that is supported",
            ),
            ("%REQ(a b)%", "\"a b\" is no header name"),
            ("50%", "a percent sign without a partner in \"50%\""),
            ("%START_TIME(%!)%", "\"%!\" is no format of a time"),
            ("%PROTOCOL:4%", "%PROTOCOL% takes no length"),
            ("%HOSTNAME:4%", "%HOSTNAME% takes no length"),
            (
                "%REQ(A):-1%",
                "%REQ(A):-1% is no command operator that is supported",
            ),
        ] {
            assert_eq!(
                Template::parse(format).expect_err(format).to_string(),
                error
            );
        }
    }
}
