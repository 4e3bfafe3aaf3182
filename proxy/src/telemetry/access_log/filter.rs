//! Which exchanges are written about.

use http::HeaderMap;
use rand::RngExt;

use super::super::report::grpc_status_of;
use super::operator::Entry;
use crate::config::access_log::{AccessLogFilter, Comparison, Moment};
use crate::config::matching::{HeaderMatch, RequestLine};

/// Whether an exchange passes a filter at a moment. Conditions on what a connection doesn't have fail for connections.
pub fn passes(filter: &AccessLogFilter, entry: Entry<'_>, moment: Moment) -> bool {
    let holds = |filter: &AccessLogFilter| passes(filter, entry, moment);
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
        // Only those that come by a listener, and are answered there: the proxy's own checks are no exchanges.
        AccessLogFilter::NotHealthCheck => match entry {
            Entry::Request(report) => !report.is_health_check,
            Entry::Connection(_) => true,
        },
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
        AccessLogFilter::GrpcStatus { statuses, exclude } => {
            statuses.contains(&grpc_status(entry)) != *exclude
        }
        AccessLogFilter::Metadata {
            matches,
            passes_missing,
        } => {
            let value = match entry {
                Entry::Request(report) => matches
                    .as_ref()
                    .and_then(|matches| matches.value_match(&report.metadata)),
                Entry::Connection(_) => None,
            };
            value.unwrap_or(*passes_missing)
        }
        AccessLogFilter::Moment { moments, exclude } => moments.contains(&moment) != *exclude,
        AccessLogFilter::All(filters) => filters.iter().all(holds),
        AccessLogFilter::Any(filters) => filters.iter().any(holds),
    }
}

/// As in Envoy, whatever is spoken: where the answer does not tell, what corresponds to its HTTP status.
fn grpc_status(entry: Entry<'_>) -> u32 {
    const UNKNOWN: u32 = 2;
    let Entry::Request(report) = entry else {
        return UNKNOWN;
    };
    let is_answered = report.response_code != 0;
    let of_http = || is_answered.then(|| grpc_status_of(report.response_code));
    report.grpc_status.or_else(of_http).unwrap_or(UNKNOWN)
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
    let path = report.rewritten_path.as_ref().or(report.path.as_ref());
    let authority = report.rewritten_authority.as_ref();
    let authority = authority.or(report.authority.as_ref());
    let line = RequestLine {
        method: report.method.as_str(),
        path: path.map_or("", |path| path.as_str()),
        authority: authority
            .and_then(|value| value.to_str().ok())
            .unwrap_or(""),
        scheme: report.scheme,
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
    use crate::config::matching::{MetadataMatch, TextMatch, ValueTest};

    fn passes(filter: &AccessLogFilter, entry: Entry<'_>) -> bool {
        super::passes(filter, entry, Moment::RequestEnd)
    }

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
    fn a_connection_is_not_traced_and_its_grpc_status_is_unknown() {
        let entry = Entry::Connection(&connection());
        let grpc = |statuses, exclude| AccessLogFilter::GrpcStatus { statuses, exclude };

        assert!(!passes(&AccessLogFilter::Traced, entry));
        assert!(passes(&grpc(vec![2], false), entry));
        assert!(!passes(&grpc(vec![2], true), entry));
    }

    #[test]
    fn a_status_for_grpc_is_told_or_corresponds_to_the_one_of_http() {
        let unavailable = AccessLogFilter::GrpcStatus {
            statuses: vec![14],
            exclude: false,
        };
        let (mut told, mut corresponding) = (request(), request());
        told.grpc_status = Some(14);
        corresponding.response_code = 503;

        assert!(passes(&unavailable, Entry::Request(&told)));
        assert!(passes(&unavailable, Entry::Request(&corresponding)));
        assert!(!passes(&unavailable, Entry::Request(&request())));
    }

    #[test]
    fn what_filters_have_found_out_passes_or_is_missing() {
        let filter = |passes_missing| AccessLogFilter::Metadata {
            matches: Some(MetadataMatch {
                namespace: "who".into(),
                path: vec!["tier".into()],
                test: ValueTest::Text(TextMatch::exact("gold")),
                invert: false,
            }),
            passes_missing,
        };
        let of = |tier: &str| {
            let mut report = request();
            report.metadata.put("who", "tier", tier.into());
            report
        };

        assert!(passes(&filter(false), Entry::Request(&of("gold"))));
        assert!(!passes(&filter(true), Entry::Request(&of("iron"))));
        assert!(passes(&filter(true), Entry::Request(&request())));
        assert!(!passes(&filter(false), Entry::Request(&request())));
    }

    #[test]
    fn an_answer_is_no_end_of_a_request_and_a_health_check_is_told_apart() {
        let filter = |exclude| AccessLogFilter::Moment {
            moments: vec![Moment::RequestEnd],
            exclude,
        };
        let mut check = request();
        check.is_health_check = true;
        let entry = Entry::Request(&check);

        assert!(super::passes(&filter(false), entry, Moment::RequestEnd));
        assert!(super::passes(&filter(true), entry, Moment::Reply));
        assert!(!passes(&AccessLogFilter::NotHealthCheck, entry));
    }
}
