//! What is written about requests and connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::matching::{HeaderMatch, MetadataMatch};
use super::percent::Percent;
use crate::telemetry::access_log::format::{Format, Missing};

/// One access log.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLogConfig {
    /// Where it goes.
    pub sink: AccessLogSink,
    /// How a line looks.
    pub format: AccessLogFormat,
    /// What stands in it for what is missing.
    pub missing: Missing,
    /// Which requests; none: all.
    pub filter: Option<AccessLogFilter>,
}

/// Where an access log goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AccessLogSink {
    /// The proxy's standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
    /// The collector of this cluster.
    Otlp {
        /// Its name.
        cluster: Arc<str>,
    },
}

/// How a line looks.
#[derive(Debug, Clone, PartialEq)]
pub enum AccessLogFormat {
    /// Envoy's default text.
    Default,
    /// A text with Envoy's `%OPERATORS%`.
    Text(Arc<str>),
    /// A JSON value whose strings hold Envoy's `%OPERATORS%`.
    Json(Arc<serde_json::Value>),
}

/// Which requests are written.
#[derive(Debug, Clone, PartialEq)]
pub enum AccessLogFilter {
    /// By response code.
    Status(Comparison, u32),
    /// By duration.
    Duration(Comparison, Duration),
    /// Without health checks of the proxy's own.
    NotHealthCheck,
    /// Those that are traced.
    Traced,
    /// A share of them.
    Sample(Percent),
    /// By a request header.
    Header(HeaderMatch),
    /// With one of these flags; empty: with any.
    ResponseFlags(Vec<Arc<str>>),
    /// With one of these gRPC statuses, or without (`exclude`).
    GrpcStatus {
        /// The statuses.
        statuses: Vec<u32>,
        /// Whether those are left out.
        exclude: bool,
    },
    /// By what filters have found out.
    Metadata {
        /// What a value must be; none: nothing is.
        matches: Option<MetadataMatch>,
        /// Whether those pass of which there is no such value.
        passes_missing: bool,
    },
    /// At one of these moments, or at no such (`exclude`).
    Moment {
        /// The moments.
        moments: Vec<Moment>,
        /// Whether those are left out.
        exclude: bool,
    },
    /// All of them hold.
    All(Vec<AccessLogFilter>),
    /// One of them holds.
    Any(Vec<AccessLogFilter>),
}

/// When somebody asks: Envoy's `AccessLogType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The proxy answers itself.
    Reply,
    /// A request has ended.
    RequestEnd,
    /// A connection has ended.
    ConnectionEnd,
    /// Nobody asks then.
    Never,
}

/// How numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// =
    Equal,
    /// ≥
    AtLeast,
    /// ≤
    AtMost,
    /// ≠
    NotEqual,
}

impl AccessLogConfig {
    /// Whether a line, or the choice of lines, depends on request headers of the configuration's choosing.
    pub fn needs_request_headers(&self) -> bool {
        Format::new(&self.format).is_ok_and(|format| format.needs_request_headers())
            || self
                .filter
                .as_ref()
                .is_some_and(AccessLogFilter::looks_at_headers)
    }

    /// Whether a line depends on response headers or trailers of the configuration's choosing.
    pub fn needs_response_headers(&self) -> bool {
        Format::new(&self.format).is_ok_and(|format| format.needs_response_headers())
    }
}

impl AccessLogFilter {
    /// Whether one of them is about a header.
    pub fn looks_at_headers(&self) -> bool {
        match self {
            AccessLogFilter::Header(_) => true,
            AccessLogFilter::All(filters) | AccessLogFilter::Any(filters) => {
                filters.iter().any(AccessLogFilter::looks_at_headers)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_kept_only_where_a_line_has_one_that_no_report_has() {
        let needs = |text: &str| {
            let log = AccessLogConfig {
                sink: AccessLogSink::Stdout,
                format: AccessLogFormat::Text(text.into()),
                missing: Missing::Shown,
                filter: None,
            };
            (log.needs_request_headers(), log.needs_response_headers())
        };

        let known = "%REQ(:METHOD)% %REQ(X-REQUEST-ID)% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%";
        assert_eq!(needs(known), (false, false));
        assert_eq!(needs("%REQ(HOST?X-USER)%"), (true, false));
        assert_eq!(needs("%REQ_WITHOUT_QUERY(X-USER)%"), (true, false));
        assert_eq!(needs("%RESP(:STATUS?SERVER)%"), (false, true));
        assert_eq!(needs("%TRAILER(X-SUM)%"), (false, true));
    }
}
