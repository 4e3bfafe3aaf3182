//! Templates: texts and JSON values with Envoy's command operators in them.
//!
//! Access-log lines, headers that routes set, and bodies of local answers are all made here.

mod json;

use self::json::JsonTemplate;
use super::operator::value::Value;
use super::operator::{InvalidOperator, Operator, Subject};
use crate::config::access_log::AccessLogFormat;

/// Envoy's default text.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// How a line or a body looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    form: Form,
    missing: Missing,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    /// A text, with its line end.
    Text(Template),
    /// A JSON value on a line.
    Json(JsonTemplate),
}

/// What stands for a value that there is none of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// A dash in a text, `null` in JSON.
    #[default]
    Shown,
    /// Nothing: Envoy's `omit_empty_values`.
    LeftOut,
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
        let form = match format {
            AccessLogFormat::Default => Form::Text(Template::parse(DEFAULT_FORMAT)?),
            AccessLogFormat::Text(text) => Form::Text(Template::parse(text)?),
            AccessLogFormat::Json(json) => Form::Json(JsonTemplate::parse(json)?),
        };
        let missing = Missing::default();
        Ok(Format { form, missing })
    }

    /// With something else in place of what is missing.
    pub fn with_missing(self, missing: Missing) -> Self {
        Format { missing, ..self }
    }

    /// What it comes to: a line of a log, or the body of an answer. As in Envoy, JSON has its line end there, too.
    pub fn text(&self, subject: Subject<'_>) -> String {
        let mut text = String::with_capacity(256);
        self.write(subject, &mut text);
        text
    }

    /// Writes what it comes to behind a text.
    pub fn write(&self, subject: Subject<'_>, text: &mut String) {
        match &self.form {
            Form::Text(template) => template.write_with(subject, self.missing.in_text(), text),
            Form::Json(template) => {
                template.write(subject, self.missing, text);
                text.push('\n');
            }
        }
    }

    /// Whether it looks at headers of a request that a report does not hold unless it is asked to.
    pub fn needs_request_headers(&self) -> bool {
        self.has(Operator::needs_request_headers)
    }

    /// Whether it looks at headers or trailers of a response that a report does not hold unless it is asked to.
    pub fn needs_response_headers(&self) -> bool {
        self.has(Operator::needs_response_headers)
    }

    /// Whether one of its operators is such a one.
    fn has(&self, is_such: fn(&Operator) -> bool) -> bool {
        match &self.form {
            Form::Text(template) => template.has(is_such),
            Form::Json(template) => template.has(is_such),
        }
    }
}

impl Missing {
    fn in_text(self) -> &'static str {
        match self {
            Missing::Shown => "-",
            Missing::LeftOut => "",
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

    /// Whether it looks at headers of a request that a report does not hold unless it is asked to.
    pub fn needs_request_headers(&self) -> bool {
        self.has(Operator::needs_request_headers)
    }

    fn has(&self, is_such: fn(&Operator) -> bool) -> bool {
        self.0.iter().any(|piece| match piece {
            Piece::Literal(_) => false,
            Piece::Operator(operator, _) => is_such(operator),
        })
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
        value => value.write(line),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::super::super::testing::{connection, request, upstream};
    use super::super::operator::Entry;
    use super::*;

    fn text(format: &str) -> String {
        let mut report = request();
        report.upstream = Some(upstream());
        let format = Format::new(&AccessLogFormat::Text(format.into())).expect("a format");
        format.text(Entry::Request(&report).into())
    }

    #[test]
    fn a_request_is_written_in_envoys_default_format() {
        let mut report = request();
        report.upstream = Some(upstream());

        let line = Format::new(&AccessLogFormat::Default)
            .expect("a format")
            .text(Entry::Request(&report).into());

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
            .text(Entry::Connection(&connection()).into());

        assert_eq!(
            line,
            "[2001-09-09T01:46:40.123Z] \"- - -\" 0 - 10 20 1500 - \
             \"-\" \"-\" \"-\" \"-\" \"10.96.0.7:15006\"\n"
        );
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

        assert_eq!(format.text(Entry::Request(&report).into()), "7 7");
    }

    #[test]
    fn a_kept_header_is_written() {
        let mut report = request();
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("jane"));
        report.request_headers = Some(Box::new(headers));
        let format = Format::new(&AccessLogFormat::Text("%REQ(X-USER)%".into())).expect("a format");

        assert_eq!(format.text(Entry::Request(&report).into()), "jane");
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
