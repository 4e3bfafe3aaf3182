//! Options of HTTP/1.1.

use http::HeaderValue;
use weft_proto::envoy::config::core::v3::Http1ProtocolOptions;
use weft_proto::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use weft_proto::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use weft_proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use weft_proto::envoy::extensions::http::header_formatters::preserve_case::v3::preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders;

use super::at::{At, Invalid, enumeration, harmless, holds, opened, required};
use super::text::text_match;
use crate::config::http1::{HeaderNames, Http1Options};

/// How HTTP/1.1 is spoken on one side.
pub(super) fn http1_options(
    at: &At<'_>,
    wire: Option<&Http1ProtocolOptions>,
) -> Result<Http1Options, Invalid> {
    let Some(wire) = wire else {
        return Ok(Http1Options::default());
    };
    let Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = wire;
    // Trailers are passed on, a length beside chunked is left out, and any token is a method: what these ask for is done
    // in any case.
    let _ = (enable_trailers, allow_chunked_length, allow_custom_methods);
    harmless!(at; override_stream_error_on_invalid_http_message, use_balsa_parser);
    let at_ignored = at.field("ignore_http_11_upgrade");
    let ignored = ignore_http_11_upgrade.iter().enumerate();
    Ok(Http1Options {
        names: names(&at.field("header_key_format"), header_key_format.as_ref())?,
        accepts_http10: *accept_http_10,
        default_host: default_host(
            &at.field("default_host_for_http_10"),
            default_host_for_http_10,
        )?,
        refuses_absolute_url: *allow_absolute_url == Some(false),
        ignored_upgrades: ignored
            .map(|(index, wire)| text_match(&at_ignored.index(index), wire))
            .collect::<Result<_, _>>()?,
        sends_absolute_url: *send_fully_qualified_url,
    })
}

fn default_host(at: &At<'_>, host: &str) -> Result<Option<HeaderValue>, Invalid> {
    if host.is_empty() {
        return Ok(None);
    }
    let host = HeaderValue::from_str(host).map_err(|_| at.refuse_value(host))?;
    Ok(Some(host))
}

fn names(at: &At<'_>, wire: Option<&HeaderKeyFormat>) -> Result<HeaderNames, Invalid> {
    let Some(HeaderKeyFormat { header_format }) = wire else {
        return Ok(HeaderNames::LowerCase);
    };
    let formatter = match required(&at.field("header_format"), header_format.as_ref())? {
        HeaderFormat::ProperCaseWords(_) => return Ok(HeaderNames::ProperCase),
        HeaderFormat::StatefulFormatter(formatter) => formatter,
    };
    let at = at.field("stateful_formatter");
    let at = at.field("typed_config");
    let any = required(&at, formatter.typed_config.as_ref())?;
    if !holds::<PreserveCaseFormatterConfig>(any) {
        return Err(at.refuse_value(&any.type_url));
    }
    let PreserveCaseFormatterConfig {
        forward_reason_phrase,
        formatter_type_on_envoy_headers,
    } = &opened::<PreserveCaseFormatterConfig>(&at, any)?;
    // A reason phrase always goes on.
    harmless!(at; forward_reason_phrase);
    let at = at.field("formatter_type_on_envoy_headers");
    Ok(match enumeration(&at, *formatter_type_on_envoy_headers)? {
        FormatterTypeOnEnvoyHeaders::Default => HeaderNames::Preserved,
        FormatterTypeOnEnvoyHeaders::ProperCase => HeaderNames::PreservedElseProper,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<Http1Options, Invalid> {
        let wire: Http1ProtocolOptions = from_json(json).expect("options");
        let notes = Notes::default();
        http1_options(&At::root(&notes), Some(&wire))
    }

    #[test]
    fn what_is_not_said_is_as_in_envoy() {
        let options = translated(json!({})).expect("valid");

        assert_eq!(options, Http1Options::default());
        assert!(!options.accepts_http10 && !options.refuses_absolute_url);
    }

    #[test]
    fn names_are_formatted_or_preserved() {
        let preserving = |more: serde_json::Value| {
            let mut config = json!({"@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"});
            let fields = config.as_object_mut().expect("an object");
            fields.extend(more.as_object().expect("an object").clone());
            json!({"header_key_format": {"stateful_formatter": {"name": "preserve_case", "typed_config": config}}})
        };
        let names = |json| translated(json).expect("valid").names;

        let proper = json!({"header_key_format": {"proper_case_words": {}}});
        assert_eq!(names(proper), HeaderNames::ProperCase);
        assert_eq!(names(preserving(json!({}))), HeaderNames::Preserved);
        let own = json!({"formatter_type_on_envoy_headers": "PROPER_CASE"});
        assert_eq!(names(preserving(own)), HeaderNames::PreservedElseProper);
    }

    #[test]
    fn a_default_host_that_is_none_is_refused() {
        let error = translated(json!({"default_host_for_http_10": "a\nb"})).expect_err("refused");

        assert!(error.to_string().starts_with("default_host_for_http_10"));
    }
}
