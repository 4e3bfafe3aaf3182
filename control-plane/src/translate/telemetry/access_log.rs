//! One line for each request or connection, on standard output.

use prost_types::Struct;
use weft_proto::any;
use weft_proto::envoy::config::accesslog::v3 as log;
use weft_proto::envoy::config::core::v3 as core;
use weft_proto::envoy::extensions::access_loggers::file::v3 as file;

use crate::kinds::telemetry::AccessLogFormat;
use crate::translate::wire;

use super::Reporting;

const FILE_LOG: &str = "envoy.access_loggers.file";

impl Reporting {
    /// The logs of requests.
    pub(in crate::translate) fn request_log(&self) -> Vec<log::AccessLog> {
        self.log(self.access_log.minimum_status.map(at_least))
    }

    /// The logs of connections, which have no status.
    pub(in crate::translate) fn connection_log(&self) -> Vec<log::AccessLog> {
        self.log(None)
    }

    fn log(&self, filter: Option<log::AccessLogFilter>) -> Vec<log::AccessLog> {
        if !self.access_log.enabled {
            return Vec::new();
        }
        let configuration = file::FileAccessLog {
            path: "/dev/stdout".to_owned(),
            access_log_format: match self.access_log.format {
                AccessLogFormat::Text => None,
                AccessLogFormat::Json => Some(json_format()),
            },
        };
        vec![log::AccessLog {
            name: FILE_LOG.to_owned(),
            filter,
            config_type: Some(log::access_log::ConfigType::TypedConfig(any::pack(
                &configuration,
            ))),
        }]
    }
}

fn at_least(status: u16) -> log::AccessLogFilter {
    let comparison = log::ComparisonFilter {
        op: log::comparison_filter::Op::Ge.into(),
        value: Some(core::RuntimeUInt32 {
            default_value: u32::from(status),
            ..core::RuntimeUInt32::default()
        }),
    };
    log::AccessLogFilter {
        filter_specifier: Some(log::access_log_filter::FilterSpecifier::StatusCodeFilter(
            log::StatusCodeFilter {
                comparison: Some(comparison),
            },
        )),
    }
}

fn json_format() -> file::file_access_log::AccessLogFormat {
    const FIELDS: [(&str, &str); 16] = [
        ("start_time", "%START_TIME%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
        ("protocol", "%PROTOCOL%"),
        ("response_code", "%RESPONSE_CODE%"),
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("bytes_received", "%BYTES_RECEIVED%"),
        ("bytes_sent", "%BYTES_SENT%"),
        ("duration", "%DURATION%"),
        (
            "upstream_service_time",
            "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
        ),
        ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
        ("user_agent", "%REQ(USER-AGENT)%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
        ("authority", "%REQ(:AUTHORITY)%"),
        ("upstream_host", "%UPSTREAM_HOST%"),
        ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ];
    let format: Struct = wire::text_struct(&FIELDS);
    file::file_access_log::AccessLogFormat::LogFormat(core::SubstitutionFormatString {
        format: Some(core::substitution_format_string::Format::JsonFormat(format)),
        ..core::SubstitutionFormatString::default()
    })
}
