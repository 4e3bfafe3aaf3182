//! Formats of access logs and headers, and the context of traces.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};

use crate::config::access_log::AccessLogFormat;
use crate::config::percent::Percent;
use crate::telemetry::access_log::format::{Format, Template};
use crate::telemetry::access_log::operator::Entry;
use crate::telemetry::report::TcpReport;
use crate::telemetry::trace::{TRACEPARENT, TRACESTATE, TraceContext};

/// A text without percent signs stands for itself; every other is refused or can be written.
pub(super) fn format(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(template) = Template::parse(text) else {
        return assert!(text.contains('%'), "{text:?}");
    };
    if !text.contains('%') {
        assert_eq!(template.literal(), Some(text));
    }
    // A percent sign that is doubled is one.
    let doubled = Template::parse(&text.replace('%', "%%")).expect("all are doubled");
    assert_eq!(doubled.literal(), Some(text));
    let format = AccessLogFormat::Text(text.into());
    let _ = Format::new(&format)
        .expect("it is a template")
        .text(Entry::Connection(&connection()).into());
}

/// What is written by a JSON format is JSON, on one line.
pub(super) fn format_json(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return;
    };
    let Ok(format) = Format::new(&AccessLogFormat::Json(json.into())) else {
        return;
    };
    let line = format.text(Entry::Connection(&connection()).into());
    assert_eq!(line.find('\n'), Some(line.len() - 1));
    let _: serde_json::Value = serde_json::from_str(&line).expect("JSON");
}

fn connection() -> TcpReport {
    use crate::config::listener::Direction;
    use crate::telemetry::report::{Downstream, ResponseFlags};
    let downstream = Downstream {
        id: 1,
        listener: "outbound".into(),
        direction: Direction::Outbound,
        peer: ([10, 0, 0, 1], 40000).into(),
        direct_peer: ([10, 0, 0, 1], 40000).into(),
        local: ([10, 0, 0, 2], 80).into(),
        principal: None,
        server_name: None,
        session: None,
        access_logs: [].into(),
    };
    TcpReport {
        downstream: downstream.into(),
        start: UNIX_EPOCH + Duration::from_secs(1_000_000_000),
        duration: Duration::from_millis(1500),
        cluster: Some("é\"\n".into()),
        upstream: None,
        received_bytes: 10,
        sent_bytes: u64::MAX,
        flags: ResponseFlags::default(),
        reason: None,
        termination: None,
        access_logs: std::sync::Arc::new([]),
    }
}

/// Two lines: a `traceparent` and a `tracestate`. What is passed on is read as it was, or is new.
pub(super) fn trace_context(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [TRACEPARENT, TRACESTATE] {
        let line = lines.next().unwrap_or_default();
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let read = TraceContext::from_headers(&headers, Percent::ALL);
    let mut sent = HeaderMap::new();
    read.inject(&mut sent);
    let again = TraceContext::from_headers(&sent, Percent::ZERO);
    assert_eq!(again.trace_id(), read.trace_id());
    assert_eq!(again.parent_span_id(), Some(read.span_id()));
    assert_eq!(again.is_sampled(), read.is_sampled());
    assert_eq!(again.state(), read.state());
}
