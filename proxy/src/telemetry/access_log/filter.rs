//! Which exchanges are written about.

use http::HeaderMap;
use rand::RngExt;

use super::operator::Entry;
use crate::config::access_log::{AccessLogFilter, Comparison};
use crate::config::matching::{HeaderMatch, RequestLine};

/// Whether an exchange passes a filter. Conditions on what a connection doesn't have fail for connections.
pub fn passes(filter: &AccessLogFilter, entry: Entry<'_>) -> bool {
    match filter {
        AccessLogFilter::Status(comparison, status) => compare(
            *comparison,
            u64::from(response_code(entry)),
            u64::from(*status),
        ),
        AccessLogFilter::Duration(comparison, duration) => {
            let taken = match entry {
                Entry::Request(report) => report.duration,
                Entry::Connection(report) => report.duration,
            };
            compare(*comparison, taken, *duration)
        }
        // The proxy's own health checks never come by a listener.
        AccessLogFilter::NotHealthCheck => true,
        AccessLogFilter::Traced => match entry {
            Entry::Request(report) => report
                .trace
                .as_ref()
                .is_some_and(|trace| trace.is_sampled()),
            Entry::Connection(_) => false,
        },
        AccessLogFilter::Sample(share) => share.covers(rand::rng().random()),
        AccessLogFilter::Header(header) => passes_header(header, entry),
        AccessLogFilter::ResponseFlags(wanted) => {
            let flags = match entry {
                Entry::Request(report) => report.flags,
                Entry::Connection(report) => report.flags,
            };
            match wanted.is_empty() {
                true => !flags.is_empty(),
                false => flags
                    .names()
                    .any(|name| wanted.iter().any(|wanted| **wanted == *name)),
            }
        }
        AccessLogFilter::GrpcStatus { statuses, exclude } => match entry {
            Entry::Request(report) => {
                report
                    .grpc_status
                    .is_some_and(|status| statuses.contains(&status))
                    != *exclude
            }
            Entry::Connection(_) => false,
        },
        AccessLogFilter::All(filters) => filters.iter().all(|filter| passes(filter, entry)),
        AccessLogFilter::Any(filters) => filters.iter().any(|filter| passes(filter, entry)),
    }
}

fn response_code(entry: Entry<'_>) -> u16 {
    match entry {
        Entry::Request(report) => report.response_code,
        Entry::Connection(_) => 0,
    }
}

fn compare<T: Ord>(comparison: Comparison, left: T, right: T) -> bool {
    match comparison {
        Comparison::Equal => left == right,
        Comparison::AtLeast => left >= right,
        Comparison::AtMost => left <= right,
        Comparison::NotEqual => left != right,
    }
}

fn passes_header(header: &HeaderMatch, entry: Entry<'_>) -> bool {
    let Entry::Request(report) = entry else {
        return false;
    };
    let line = RequestLine {
        method: report.method.as_str(),
        path: report.path.as_ref().map_or("", |path| path.as_str()),
        authority: report
            .authority
            .as_ref()
            .and_then(|value| value.to_str().ok())
            .unwrap_or(""),
        scheme: "http",
    };
    match &report.request_headers {
        Some(headers) => header.is_match(line, headers),
        None => header.is_match(line, &HeaderMap::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::report::ResponseFlags;
    use super::super::super::testing::{connection, request};
    use super::*;

    #[test]
    fn only_what_is_slow_or_failed_can_be_asked_for() {
        let filter = AccessLogFilter::Any(vec![
            AccessLogFilter::Status(Comparison::AtLeast, 500),
            AccessLogFilter::Duration(Comparison::AtLeast, Duration::from_millis(100)),
        ]);
        let (fast, mut slow, mut failed) = (request(), request(), request());
        slow.duration = Duration::from_millis(100);
        failed.response_code = 503;

        assert!(!passes(&filter, Entry::Request(&fast)));
        assert!(passes(&filter, Entry::Request(&slow)));
        assert!(passes(&filter, Entry::Request(&failed)));
    }

    #[test]
    fn flags_are_asked_for_by_name_or_at_all() {
        let mut report = request();
        report.flags = ResponseFlags::UPSTREAM_OVERFLOW;

        assert!(passes(
            &AccessLogFilter::ResponseFlags(vec![]),
            Entry::Request(&report)
        ));
        assert!(passes(
            &AccessLogFilter::ResponseFlags(vec!["UO".into()]),
            Entry::Request(&report)
        ));
        assert!(!passes(
            &AccessLogFilter::ResponseFlags(vec!["UF".into()]),
            Entry::Request(&report)
        ));
        assert!(!passes(
            &AccessLogFilter::ResponseFlags(vec![]),
            Entry::Request(&request())
        ));
    }

    #[test]
    fn a_connection_has_neither_trace_nor_grpc_status() {
        let filter = AccessLogFilter::Any(vec![
            AccessLogFilter::Traced,
            AccessLogFilter::GrpcStatus {
                statuses: vec![],
                exclude: true,
            },
        ]);

        assert!(!passes(&filter, Entry::Connection(&connection())));
    }
}
