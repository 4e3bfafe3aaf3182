//! Access logs.

pub(super) mod filter;

use std::path::PathBuf;
use std::sync::Arc;

use weft_proto::envoy::config::accesslog::v3::AccessLog;
use weft_proto::envoy::config::accesslog::v3::access_log::ConfigType;
use weft_proto::envoy::config::core::v3::data_source::Specifier;
use weft_proto::envoy::config::core::v3::substitution_format_string::Format as WireFormat;
use weft_proto::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use weft_proto::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use weft_proto::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat as FileFormat;
use weft_proto::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use weft_proto::wkt::struct_to_json;

use self::filter::filter;
use super::at::{At, Invalid, harmless, holds, nonempty, opened, required};
use super::body_format::{formatters, missing};
use crate::config::access_log::{AccessLogConfig, AccessLogFormat, AccessLogSink};
use crate::telemetry::access_log::format::{Format, Missing};

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
    let (sink, (format, missing)) = if holds::<FileAccessLog>(any) {
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
        missing,
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

fn file_format(at: &At<'_>, wire: Option<&FileFormat>) -> Result<Formatted, Invalid> {
    let format = match wire {
        None => AccessLogFormat::Default,
        Some(FileFormat::Format(text)) => text_format(text),
        Some(FileFormat::JsonFormat(fields) | FileFormat::TypedJsonFormat(fields)) => json(fields),
        Some(FileFormat::LogFormat(format)) => {
            return substitution(&at.field("log_format"), Some(format));
        }
    };
    Ok((format, Missing::Shown))
}

/// How a line looks, and what stands in it for what is missing.
type Formatted = (AccessLogFormat, Missing);

fn substitution(
    at: &At<'_>,
    wire: Option<&SubstitutionFormatString>,
) -> Result<Formatted, Invalid> {
    let Some(wire) = wire else {
        return Ok((AccessLogFormat::Default, Missing::Shown));
    };
    let SubstitutionFormatString {
        omit_empty_values,
        content_type,
        formatters: extensions,
        json_format_options,
        format,
    } = wire;
    formatters(&at.field("formatters"), extensions)?;
    harmless!(at; content_type, json_format_options);
    let format = match required(&at.field("format"), format.as_ref())? {
        WireFormat::TextFormat(text) => text_format(text),
        WireFormat::JsonFormat(fields) => json(fields),
        WireFormat::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(text)),
            watched_directory: None,
        }) => text_format(text),
        WireFormat::TextFormatSource(other) => {
            return Err(at.field("text_format_source").refuse_value(other));
        }
    };
    Ok((format, missing(*omit_empty_values)))
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;
    use crate::config::access_log::{AccessLogFilter, Comparison};

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
