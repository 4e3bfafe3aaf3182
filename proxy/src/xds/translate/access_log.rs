//! Access logs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::config::accesslog::v3::access_log::ConfigType;
use weft_proto::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use weft_proto::envoy::config::accesslog::v3::comparison_filter::Op;
use weft_proto::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter as WireFilter, AndFilter, ComparisonFilter, DurationFilter,
    GrpcStatusFilter, HeaderFilter, NotHealthCheckFilter, OrFilter, ResponseFlagFilter,
    RuntimeFilter, StatusCodeFilter, TraceableFilter,
};
use weft_proto::envoy::config::core::v3::data_source::Specifier;
use weft_proto::envoy::config::core::v3::substitution_format_string::Format as WireFormat;
use weft_proto::envoy::config::core::v3::{DataSource, RuntimeUInt32, SubstitutionFormatString};
use weft_proto::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use weft_proto::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat as FileFormat;
use weft_proto::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use weft_proto::wkt::struct_to_json;

use super::at::{
    At, Invalid, enumeration, harmless, holds, nonempty, opened, required, unsupported,
};
use super::share::fraction;
use super::text::header_match;
use crate::config::access_log::{
    AccessLogConfig, AccessLogFilter, AccessLogFormat, AccessLogSink, Comparison,
};
use crate::config::percent::Percent;
use crate::telemetry::access_log::format::Format;

/// All of a listener's or filter's.
pub(super) fn access_logs(
    at: &At<'_>,
    wire: &[AccessLog],
) -> Result<Arc<[Arc<AccessLogConfig>]>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| access_log(&at.index(index), wire).map(Arc::new))
        .collect()
}

fn access_log(at: &At<'_>, wire: &AccessLog) -> Result<AccessLogConfig, Invalid> {
    let AccessLog {
        name,
        filter: filters,
        config_type,
    } = wire;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return Err(at.field("typed_config").refuse_value(name));
    };
    let at_config = at.field("typed_config");
    let (sink, format) = if holds::<FileAccessLog>(any) {
        let FileAccessLog {
            path,
            access_log_format,
        } = &opened(&at_config, any)?;
        let sink = file(nonempty(&at_config.field("path"), path)?);
        (sink, file_format(&at_config, access_log_format.as_ref())?)
    } else if holds::<StdoutAccessLog>(any) {
        let StdoutAccessLog { access_log_format } = &opened(&at_config, any)?;
        let format = access_log_format
            .as_ref()
            .map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        (
            AccessLogSink::Stdout,
            substitution(&at_config.field("log_format"), format)?,
        )
    } else if holds::<StderrAccessLog>(any) {
        let StderrAccessLog { access_log_format } = &opened(&at_config, any)?;
        let format = access_log_format
            .as_ref()
            .map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        (
            AccessLogSink::Stderr,
            substitution(&at_config.field("log_format"), format)?,
        )
    } else {
        return Err(at_config.refuse_value(&any.type_url));
    };
    // Said now, while the resource can be refused; the log itself parses it again.
    Format::new(&format).map_err(|error| at_config.refuse(error))?;
    let filter = filters
        .as_ref()
        .map(|wire| filter(&at.field("filter"), wire))
        .transpose()?;
    Ok(AccessLogConfig {
        sink,
        format,
        filter,
    })
}

fn file(path: &str) -> AccessLogSink {
    match path {
        "/dev/stdout" => AccessLogSink::Stdout,
        "/dev/stderr" => AccessLogSink::Stderr,
        path => AccessLogSink::File(PathBuf::from(path)),
    }
}

fn file_format(at: &At<'_>, wire: Option<&FileFormat>) -> Result<AccessLogFormat, Invalid> {
    Ok(match wire {
        None => AccessLogFormat::Default,
        Some(FileFormat::Format(text)) => text_format(text),
        Some(FileFormat::JsonFormat(fields) | FileFormat::TypedJsonFormat(fields)) => json(fields),
        Some(FileFormat::LogFormat(format)) => substitution(&at.field("log_format"), Some(format))?,
    })
}

fn substitution(
    at: &At<'_>,
    wire: Option<&SubstitutionFormatString>,
) -> Result<AccessLogFormat, Invalid> {
    let Some(wire) = wire else {
        return Ok(AccessLogFormat::Default);
    };
    let SubstitutionFormatString {
        omit_empty_values,
        content_type,
        formatters,
        json_format_options,
        format,
    } = wire;
    unsupported!(at; formatters);
    harmless!(at; omit_empty_values, content_type, json_format_options);
    match required(&at.field("format"), format.as_ref())? {
        WireFormat::TextFormat(text) => Ok(text_format(text)),
        WireFormat::JsonFormat(fields) => Ok(json(fields)),
        WireFormat::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(text)),
            watched_directory: None,
        }) => Ok(text_format(text)),
        WireFormat::TextFormatSource(other) => {
            Err(at.field("text_format_source").refuse_value(other))
        }
    }
}

/// An empty one is Envoy's default.
fn text_format(text: &str) -> AccessLogFormat {
    match text {
        "" => AccessLogFormat::Default,
        text => AccessLogFormat::Text(text.into()),
    }
}

fn json(fields: &prost_types::Struct) -> AccessLogFormat {
    AccessLogFormat::Json(Arc::new(serde_json::Value::Object(struct_to_json(fields))))
}

fn filter(at: &At<'_>, wire: &WireFilter) -> Result<AccessLogFilter, Invalid> {
    let WireFilter { filter_specifier } = wire;
    Ok(
        match required(&at.field("filter_specifier"), filter_specifier.as_ref())? {
            FilterSpecifier::StatusCodeFilter(StatusCodeFilter { comparison: wire }) => {
                let (op, value) = comparison(&at.field("status_code_filter"), wire.as_ref())?;
                AccessLogFilter::Status(op, value)
            }
            FilterSpecifier::DurationFilter(DurationFilter { comparison: wire }) => {
                let (op, value) = comparison(&at.field("duration_filter"), wire.as_ref())?;
                AccessLogFilter::Duration(op, Duration::from_millis(value.into()))
            }
            FilterSpecifier::NotHealthCheckFilter(NotHealthCheckFilter {}) => {
                AccessLogFilter::NotHealthCheck
            }
            FilterSpecifier::TraceableFilter(TraceableFilter {}) => AccessLogFilter::Traced,
            FilterSpecifier::RuntimeFilter(wire) => {
                AccessLogFilter::Sample(sample(&at.field("runtime_filter"), wire)?)
            }
            FilterSpecifier::AndFilter(AndFilter { filters }) => {
                AccessLogFilter::All(several(&at.field("and_filter").field("filters"), filters)?)
            }
            FilterSpecifier::OrFilter(OrFilter { filters }) => {
                AccessLogFilter::Any(several(&at.field("or_filter").field("filters"), filters)?)
            }
            FilterSpecifier::HeaderFilter(HeaderFilter { header }) => {
                let at = at.field("header_filter");
                let at = at.field("header");
                AccessLogFilter::Header(header_match(&at, required(&at, header.as_ref())?)?)
            }
            FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter { flags }) => {
                AccessLogFilter::ResponseFlags(
                    flags.iter().map(|flag| flag.as_str().into()).collect(),
                )
            }
            FilterSpecifier::GrpcStatusFilter(GrpcStatusFilter { statuses, exclude }) => {
                let at = at.field("grpc_status_filter");
                let statuses = statuses
                    .iter()
                    .map(|status| u32::try_from(*status).map_err(|_| at.refuse_value(status)))
                    .collect::<Result<_, _>>()?;
                AccessLogFilter::GrpcStatus {
                    statuses,
                    exclude: *exclude,
                }
            }
            FilterSpecifier::ExtensionFilter(wire) => {
                return Err(at.field("extension_filter").refuse_value(&wire.name));
            }
            FilterSpecifier::MetadataFilter(_) => {
                return Err(at.field("metadata_filter").refuse("not supported"));
            }
            FilterSpecifier::LogTypeFilter(_) => {
                return Err(at.field("log_type_filter").refuse("not supported"));
            }
        },
    )
}

/// Filters nest as deep as prost lets a message nest.
fn several(at: &At<'_>, wire: &[WireFilter]) -> Result<Vec<AccessLogFilter>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| filter(&at.index(index), wire))
        .collect()
}

fn comparison(at: &At<'_>, wire: Option<&ComparisonFilter>) -> Result<(Comparison, u32), Invalid> {
    let at = at.field("comparison");
    let ComparisonFilter { op, value } = required(&at, wire)?;
    let op = match enumeration(&at.field("op"), *op)? {
        Op::Eq => Comparison::Equal,
        Op::Ge => Comparison::AtLeast,
        Op::Le => Comparison::AtMost,
        Op::Ne => Comparison::NotEqual,
    };
    let at = at.field("value");
    let RuntimeUInt32 {
        default_value,
        runtime_key,
    } = required(&at, value.as_ref())?;
    let value = at.runtime().count(runtime_key).unwrap_or(*default_value);
    Ok((op, value))
}

fn sample(at: &At<'_>, wire: &RuntimeFilter) -> Result<Percent, Invalid> {
    let RuntimeFilter {
        runtime_key,
        percent_sampled,
        use_independent_randomness,
    } = wire;
    harmless!(at; use_independent_randomness);
    let told = at.runtime().share(runtime_key);
    let at = at.field("percent_sampled");
    let default = percent_sampled
        .as_ref()
        .map_or(Ok(Percent::ZERO), |wire| fraction(&at, wire))?;
    Ok(told.unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

    fn translated(json: serde_json::Value) -> Result<AccessLogConfig, Invalid> {
        let wire: AccessLog = from_json(json).expect("an access log");
        let notes = Notes::default();
        access_log(&At::root(&notes), &wire)
    }

    #[test]
    fn a_log_in_json_to_standard_output_for_errors_is_understood() {
        let config = translated(json!({
            "name": "log",
            "filter": {"status_code_filter":
                {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "k"}}}},
            "typed_config": {"@type": FILE, "path": "/dev/stdout",
                "log_format": {"json_format": {"code": "%RESPONSE_CODE%"}}},
        }))
        .expect("valid");

        assert_eq!(config.sink, AccessLogSink::Stdout);
        assert_eq!(
            config.filter,
            Some(AccessLogFilter::Status(Comparison::AtLeast, 500))
        );
        assert!(matches!(config.format, AccessLogFormat::Json(_)));
    }

    #[test]
    fn a_format_with_a_mistake_is_refused() {
        let error = translated(json!({
            "name": "log",
            "typed_config": {"@type": FILE, "path": "/dev/stdout",
                "log_format": {"text_format_source": {"inline_string": "%NOPE%"}}},
        }))
        .expect_err("refused");

        assert_eq!(
            error.to_string(),
            "typed_config: %NOPE% is no command operator that is supported"
        );
    }
}
