//! What bodies of the proxy's own answers are made of.

use std::sync::Arc;

use http::HeaderValue;
use weft_proto::envoy::config::core::v3::substitution_format_string::Format as WireFormat;
use weft_proto::envoy::config::core::v3::{SubstitutionFormatString, TypedExtensionConfig};
use weft_proto::envoy::extensions::formatter::metadata::v3::Metadata;
use weft_proto::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;
use weft_proto::wkt::struct_to_json;

use super::at::{At, Invalid, harmless, holds, required};
use super::data_source::data_source;
use crate::config::access_log::AccessLogFormat;
use crate::config::body_format::{BodyFormat, JSON, TEXT};
use crate::telemetry::access_log::format::{Format, Missing};

/// A body of text or JSON, whose source has at most so many bytes.
pub(super) fn body_format(
    at: &At<'_>,
    wire: &SubstitutionFormatString,
    max_bytes: usize,
) -> Result<BodyFormat, Invalid> {
    let SubstitutionFormatString {
        omit_empty_values,
        content_type,
        formatters: extensions,
        json_format_options,
        format,
    } = wire;
    // Properties are sorted in any case.
    harmless!(at; json_format_options);
    formatters(&at.field("formatters"), extensions)?;
    let (form, default_type) = match required(&at.field("format"), format.as_ref())? {
        WireFormat::TextFormat(text) => (AccessLogFormat::Text(text.as_str().into()), TEXT),
        WireFormat::JsonFormat(fields) => (
            AccessLogFormat::Json(Arc::new(struct_to_json(fields).into())),
            JSON,
        ),
        WireFormat::TextFormatSource(source) => {
            let at = at.field("text_format_source");
            let text = data_source(&at, source, max_bytes)?;
            let text = std::str::from_utf8(&text).map_err(|error| at.refuse(error))?;
            (AccessLogFormat::Text(text.into()), TEXT)
        }
    };
    let format = Format::new(&form).map_err(|error| at.refuse(error))?;
    let content_type = match content_type.as_str() {
        "" => default_type,
        text => {
            HeaderValue::from_str(text).map_err(|_| at.field("content_type").refuse_value(text))?
        }
    };
    Ok(BodyFormat {
        format: Arc::new(format.with_missing(missing(*omit_empty_values))),
        content_type,
    })
}

/// What stands for what is missing.
pub(super) fn missing(is_omitted: bool) -> Missing {
    match is_omitted {
        true => Missing::LeftOut,
        false => Missing::Shown,
    }
}

/// Those whose operators are there without them.
pub(super) fn formatters(at: &At<'_>, wire: &[TypedExtensionConfig]) -> Result<(), Invalid> {
    for (index, wire) in wire.iter().enumerate() {
        let TypedExtensionConfig { name, typed_config } = wire;
        let any = typed_config.as_ref();
        let is_known =
            any.is_some_and(|any| holds::<ReqWithoutQuery>(any) || holds::<Metadata>(any));
        if !is_known {
            return Err(at.index(index).refuse_value(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<BodyFormat, Invalid> {
        let wire: SubstitutionFormatString = from_json(json).expect("a format");
        body_format(&At::root(&Notes::default()), &wire, 100)
    }

    #[test]
    fn a_body_is_called_what_it_is_unless_something_else_is_said() {
        let content_type = |json| translated(json).expect("valid").content_type;

        assert_eq!(content_type(json!({"text_format": "a"})), "text/plain");
        assert_eq!(content_type(json!({"json_format": {}})), "application/json");
        let said = json!({"json_format": {}, "content_type": "text/html"});
        assert_eq!(content_type(said), "text/html");
    }

    #[test]
    fn what_is_no_format_is_refused_by_its_place() {
        let refusal = |json| translated(json).expect_err("refused").to_string();

        assert_eq!(refusal(json!({})), "format: missing");
        assert_eq!(
            refusal(json!({"text_format": "a", "formatters": [{"name": "cel"}]})),
            "formatters[0]: \"cel\" is not supported"
        );
        assert_eq!(
            refusal(json!({"text_format": "a", "content_type": "a\r\nb: c"})),
            "content_type: \"a\\r\\nb: c\" is not supported"
        );
        assert_eq!(
            refusal(json!({"text_format_source": {"inline_string": "a".repeat(101)}})),
            "text_format_source: 101 bytes are more than 100"
        );
    }
}
