//! Operators about times: when a line is written, how long a part of a request took, from when a certificate is valid.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::super::super::report::{Downstream, RequestReport, Upstream};
use super::{InvalidOperator, Value};

/// An operator about a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// `%EMIT_TIME(FORMAT)%`: when the line is written.
    Emitted(String),
    /// `%DOWNSTREAM_PEER_CERT_V_START(FORMAT)%`.
    ValidFrom(String),
    /// `%DOWNSTREAM_PEER_CERT_V_END(FORMAT)%`.
    ValidUntil(String),
    /// `%UPSTREAM_PEER_CERT_V_START(FORMAT)%`.
    UpstreamValidFrom(String),
    /// `%UPSTREAM_PEER_CERT_V_END(FORMAT)%`.
    UpstreamValidUntil(String),
    /// `%COMMON_DURATION(START:END:PRECISION)%`.
    Between(Point, Point, Precision),
}

/// A point of time of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Its headers had arrived.
    RequestBegins,
    /// Its last byte had arrived.
    RequestEnds,
    /// The upstream's first byte had arrived.
    ResponseBegins,
    /// The last byte was sent to the client.
    ResponseSent,
}

/// What durations are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

/// Envoy's: `2016-04-15T20:17:00.310Z`.
pub(super) const DEFAULT_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.3fZ";

impl Moment {
    /// From its word and argument; `None` where the word is not one of these.
    pub(super) fn parse(
        word: &str,
        argument: Option<&str>,
    ) -> Result<Option<Self>, InvalidOperator> {
        let written = || format(argument.unwrap_or_default());
        Ok(Some(match (word, argument) {
            ("EMIT_TIME", _) => Moment::Emitted(written()?),
            ("DOWNSTREAM_PEER_CERT_V_START", _) => Moment::ValidFrom(written()?),
            ("DOWNSTREAM_PEER_CERT_V_END", _) => Moment::ValidUntil(written()?),
            ("UPSTREAM_PEER_CERT_V_START", _) => Moment::UpstreamValidFrom(written()?),
            ("UPSTREAM_PEER_CERT_V_END", _) => Moment::UpstreamValidUntil(written()?),
            ("COMMON_DURATION", Some(argument)) => {
                between(argument).ok_or_else(|| InvalidOperator::Argument(argument.to_owned()))?
            }
            _ => return Ok(None),
        }))
    }

    pub(super) fn of_request(&self, report: &RequestReport) -> Value<'static> {
        let Moment::Between(from, to, precision) = self else {
            return self.of_connection(&report.downstream, report.upstream.as_ref());
        };
        let (Some(from), Some(to)) = (from.of(report), to.of(report)) else {
            return Value::Missing;
        };
        match to.checked_sub(from) {
            Some(duration) => Value::Number(precision.count(duration)),
            None => Value::Missing,
        }
    }

    pub(super) fn of_connection(
        &self,
        downstream: &Downstream,
        upstream: Option<&Upstream>,
    ) -> Value<'static> {
        let validity = || downstream.session.as_ref()?.validity();
        let of_upstream = || upstream?.session.as_ref()?.validity();
        match self {
            Moment::Emitted(format) => time(SystemTime::now(), format),
            Moment::ValidFrom(format) => second(validity().map(|(from, _)| from), format),
            Moment::ValidUntil(format) => second(validity().map(|(_, to)| to), format),
            Moment::UpstreamValidFrom(format) => {
                second(of_upstream().map(|(from, _)| from), format)
            }
            Moment::UpstreamValidUntil(format) => second(of_upstream().map(|(_, to)| to), format),
            Moment::Between(..) => Value::Missing,
        }
    }
}

impl Point {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "DS_RX_BEG" => Point::RequestBegins,
            "DS_RX_END" => Point::RequestEnds,
            "US_RX_BEG" => Point::ResponseBegins,
            "DS_TX_END" => Point::ResponseSent,
            _ => return None,
        })
    }

    /// Since the request began.
    fn of(self, report: &RequestReport) -> Option<Duration> {
        match self {
            Point::RequestBegins => Some(Duration::ZERO),
            Point::RequestEnds => report.request_duration,
            Point::ResponseBegins => report.upstream_latency,
            Point::ResponseSent => Some(report.duration),
        }
    }
}

impl Precision {
    fn count(self, duration: Duration) -> u64 {
        let count = match self {
            Precision::Milliseconds => duration.as_millis(),
            Precision::Microseconds => duration.as_micros(),
            Precision::Nanoseconds => duration.as_nanos(),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

fn between(argument: &str) -> Option<Moment> {
    let mut parts = argument.split(':');
    let (from, to) = (Point::parse(parts.next()?)?, Point::parse(parts.next()?)?);
    let precision = match (parts.next()?, parts.next()) {
        ("ms", None) => Precision::Milliseconds,
        ("us", None) => Precision::Microseconds,
        ("ns", None) => Precision::Nanoseconds,
        _ => return None,
    };
    Some(Moment::Between(from, to, precision))
}

/// A format of a time in strftime's notation; the default where there is none.
pub(super) fn format(format: &str) -> Result<String, InvalidOperator> {
    let format = match format {
        "" => DEFAULT_FORMAT,
        format => format,
    };
    match jiff::fmt::strtime::format(format, Timestamp::UNIX_EPOCH) {
        Ok(_) => Ok(format.to_owned()),
        Err(_) => Err(InvalidOperator::TimeFormat(format.to_owned())),
    }
}

pub(super) fn time(time: SystemTime, format: &str) -> Value<'static> {
    match Timestamp::try_from(time) {
        Ok(time) if format == DEFAULT_FORMAT => Value::Time(time),
        Ok(time) => written(time, format),
        Err(_) => Value::Missing,
    }
}

fn second(seconds: Option<i64>, format: &str) -> Value<'static> {
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or(Value::Missing, |time| written(time, format))
}

fn written(time: Timestamp, format: &str) -> Value<'static> {
    jiff::fmt::strtime::format(format, time).map_or(Value::Missing, |text| Value::Text(text.into()))
}
