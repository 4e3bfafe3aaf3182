//! Envoy's command operators: what `%RESPONSE_CODE%` and its like stand for.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators>

mod argument;
mod header;
mod moment;
mod plain;
pub mod value;

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use self::argument::WithArgument;
use self::header::{Header, ResponseHeader};
use self::moment::{Moment, time};
use self::plain::Plain;
use self::value::Value;
use super::super::report::{RequestReport, TcpReport};
use crate::config::matching::RequestLine;

/// What is written about.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'report> {
    /// A request.
    Request(&'report RequestReport),
    /// A connection.
    Connection(&'report TcpReport),
}

/// What operators are asked about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'report> {
    /// A request, on its way or over.
    Exchange(Exchange<'report>),
    /// A connection.
    Connection(&'report TcpReport),
}

impl<'report> From<Entry<'report>> for Subject<'report> {
    fn from(entry: Entry<'report>) -> Self {
        match entry {
            Entry::Request(report) => Subject::Exchange(Exchange::ended(report)),
            Entry::Connection(report) => Subject::Connection(report),
        }
    }
}

/// A request on its way, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'report> {
    /// What is known of it so far.
    pub report: &'report RequestReport,
    /// Its line; where there is none any more, the report's is taken.
    pub line: Option<RequestLine<'report>>,
    /// Its headers; where there are none any more, the report's are taken.
    pub request: Option<&'report HeaderMap>,
    /// The headers of its response.
    pub response: Option<&'report HeaderMap>,
    /// The body of an answer of the proxy's own.
    pub local_body: Option<&'report str>,
}

/// One operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// `%START_TIME%`, `%START_TIME(%Y-%m-%d)%`: strftime's notation.
    StartTime(String),
    /// `%REQ(NAME?ALTERNATIVE)%`.
    RequestHeader {
        /// The header.
        name: Header,
        /// Where it is missing.
        alternative: Option<Header>,
    },
    /// `%RESP(NAME?ALTERNATIVE)%`.
    ResponseHeader {
        /// The header.
        name: ResponseHeader,
        /// Where it is missing.
        alternative: Option<ResponseHeader>,
    },
    /// `%TRAILER(NAME?ALTERNATIVE)%`.
    ResponseTrailer {
        /// The trailer.
        name: HeaderName,
        /// Where it is missing.
        alternative: Option<HeaderName>,
    },
    /// One about another time.
    Moment(Moment),
    /// One of the others with an argument.
    WithArgument(WithArgument),
    /// One of those without arguments.
    Plain(Plain),
}

/// Why an operator is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOperator {
    /// No such word.
    #[error("%{0}% is no command operator that is supported")]
    Unknown(String),
    /// Its argument is no header name.
    #[error("{0:?} is no header name")]
    HeaderName(String),
    /// Its argument is no format of a time.
    #[error("{0:?} is no format of a time")]
    TimeFormat(String),
    /// Its argument is none that it takes.
    #[error("{0:?} is no argument of the operator")]
    Argument(String),
    /// It is never cut off.
    #[error("%{0}% takes no length")]
    Length(String),
}

impl Operator {
    /// From what stands between the percent signs.
    pub fn parse(text: &str) -> Result<Self, InvalidOperator> {
        let unknown = || InvalidOperator::Unknown(text.to_owned());
        let (word, argument) = match text.split_once('(') {
            Some((word, rest)) => (word, Some(rest.strip_suffix(')').ok_or_else(unknown)?)),
            None => (text, None),
        };
        match (word, argument) {
            ("START_TIME", argument) => {
                moment::format(argument.unwrap_or_default()).map(Operator::StartTime)
            }
            ("REQ" | "REQUEST_HEADER", Some(argument)) => request_header(argument),
            ("RESP" | "RESPONSE_HEADER", Some(argument)) => response_header(argument),
            ("TRAILER" | "RESPONSE_TRAILER", Some(argument)) => response_trailer(argument),
            (word, argument) => {
                if let Some(moment) = Moment::parse(word, argument)? {
                    return Ok(Operator::Moment(moment));
                }
                match (WithArgument::parse(word, argument)?, argument) {
                    (Some(operator), _) => Ok(Operator::WithArgument(operator)),
                    (None, None) => Plain::from_word(word)
                        .map(Operator::Plain)
                        .ok_or_else(unknown),
                    (None, Some(_)) => Err(unknown()),
                }
            }
        }
    }

    /// Whether its value may be cut off: in Envoy, where somebody else has chosen it.
    pub fn takes_length(&self) -> bool {
        match self {
            Operator::RequestHeader { .. }
            | Operator::ResponseHeader { .. }
            | Operator::ResponseTrailer { .. } => true,
            Operator::WithArgument(operator) => operator.takes_length(),
            Operator::StartTime(_) | Operator::Moment(_) | Operator::Plain(_) => false,
        }
    }

    /// What it stands for.
    pub fn value<'report>(&'report self, subject: Subject<'report>) -> Value<'report> {
        let exchange = match subject {
            Subject::Connection(report) => return self.of_connection(report),
            Subject::Exchange(exchange) => exchange,
        };
        match self {
            Operator::StartTime(format) => time(exchange.report.start, format),
            Operator::RequestHeader { name, alternative } => match name.value(exchange) {
                Value::Missing => alternative
                    .as_ref()
                    .map_or(Value::Missing, |name| name.value(exchange)),
                value => value,
            },
            Operator::ResponseHeader { name, alternative } => match name.value(exchange) {
                Value::Missing => alternative
                    .as_ref()
                    .map_or(Value::Missing, |name| name.value(exchange)),
                value => value,
            },
            Operator::ResponseTrailer { name, alternative } => {
                let trailers = exchange.report.response_trailers.as_deref();
                let value = trailers.and_then(|trailers| {
                    let alternative = alternative.as_ref();
                    let other = || trailers.get(alternative?);
                    trailers.get(name).or_else(other)
                });
                value.map_or(Value::Missing, header_text)
            }
            Operator::Moment(moment) => moment.of_request(exchange.report),
            Operator::WithArgument(operator) => operator.value(exchange),
            // Before it is sent, the first try is the one that is meant.
            Operator::Plain(Plain::UpstreamRequestAttemptCount) if exchange.request.is_some() => {
                Value::Number(exchange.report.attempts.max(1).into())
            }
            // As in Envoy, one that is not known, or is no more, is empty.
            Operator::Plain(Plain::LocalReplyBody) => text(exchange.local_body.unwrap_or_default()),
            Operator::Plain(plain) => plain.of_request(exchange.report),
        }
    }

    fn of_connection<'report>(&'report self, report: &'report TcpReport) -> Value<'report> {
        match self {
            Operator::StartTime(format) => time(report.start, format),
            Operator::Plain(plain) => plain.of_connection(report),
            Operator::Moment(moment) => {
                moment.of_connection(&report.downstream, report.upstream.as_ref())
            }
            Operator::RequestHeader { .. }
            | Operator::ResponseHeader { .. }
            | Operator::ResponseTrailer { .. } => Value::Missing,
            Operator::WithArgument(operator) => {
                let fixed = operator.fixed();
                fixed.map_or(Value::Missing, text)
            }
        }
    }

    /// Whether it looks at headers of a request that a report does not hold unless it is asked to.
    pub fn needs_request_headers(&self) -> bool {
        let is_other = |header: &Header| matches!(header, Header::Other(_));
        match self {
            Operator::RequestHeader { name, alternative }
            | Operator::WithArgument(WithArgument::WithoutQuery(name, alternative)) => {
                is_other(name) || alternative.as_ref().is_some_and(is_other)
            }
            _ => false,
        }
    }

    /// Whether it looks at headers or trailers of a response that a report does not hold unless it is asked to.
    pub fn needs_response_headers(&self) -> bool {
        let is_other = |header: &ResponseHeader| matches!(header, ResponseHeader::Other(_));
        match self {
            Operator::ResponseTrailer { .. } => true,
            Operator::ResponseHeader { name, alternative } => {
                is_other(name) || alternative.as_ref().is_some_and(is_other)
            }
            _ => false,
        }
    }
}

impl<'report> Exchange<'report> {
    /// One that is over.
    pub fn ended(report: &'report RequestReport) -> Self {
        Exchange {
            report,
            line: None,
            request: None,
            response: None,
            local_body: None,
        }
    }

    /// Path and query, as they are now.
    fn path(self) -> Option<&'report str> {
        let line = self.line.map(|line| line.path);
        let rewritten = self.report.rewritten_path.as_ref();
        let told = rewritten.or(self.report.path.as_ref());
        line.or(told.map(|path| path.as_str()))
    }

    /// Path and query before a route has rewritten them; none where none has.
    fn original_path(self) -> Option<&'report str> {
        self.report.rewritten_path.as_ref()?;
        self.report.path.as_ref().map(|path| path.as_str())
    }
}

fn request_header(argument: &str) -> Result<Operator, InvalidOperator> {
    let (name, alternative) = match argument.split_once('?') {
        Some((name, alternative)) => (name, Some(Header::parse(alternative)?)),
        None => (argument, None),
    };
    Ok(Operator::RequestHeader {
        name: Header::parse(name)?,
        alternative,
    })
}

fn response_header(argument: &str) -> Result<Operator, InvalidOperator> {
    let (name, alternative) = match argument.split_once('?') {
        Some((name, alternative)) => (name, Some(ResponseHeader::parse(alternative)?)),
        None => (argument, None),
    };
    Ok(Operator::ResponseHeader {
        name: ResponseHeader::parse(name)?,
        alternative,
    })
}

fn response_trailer(argument: &str) -> Result<Operator, InvalidOperator> {
    let parse = |name: &str| {
        let known = name.parse();
        known.map_err(|_| InvalidOperator::HeaderName(name.to_owned()))
    };
    let (name, alternative) = match argument.split_once('?') {
        Some((name, alternative)) => (name, Some(parse(alternative)?)),
        None => (argument, None),
    };
    Ok(Operator::ResponseTrailer {
        name: parse(name)?,
        alternative,
    })
}

fn header_text(value: &HeaderValue) -> Value<'_> {
    // Most are, and looking for what is not takes longer than to see that.
    Value::Text(match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(value.as_bytes()),
    })
}

fn text(text: &str) -> Value<'_> {
    Value::Text(text.into())
}

fn millis(duration: Duration) -> Value<'static> {
    Value::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
