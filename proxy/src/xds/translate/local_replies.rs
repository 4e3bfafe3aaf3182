//! Changes of the proxy's own answers.

use http::StatusCode;
use weft_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    LocalReplyConfig, ResponseMapper,
};

use super::access_log::filter::filter;
use super::at::{At, Invalid, required};
use super::body_format::body_format;
use super::data_source::data_source;
use super::headers::formatted_mutations;
use crate::config::local_replies::{LocalReplies, ReplyMapper};

/// The longest body, and the longest format of one. Envoy has no bound; whoever asks is sent all of it.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Envoy's number of headers that a mapper may add.
const MAX_HEADERS: usize = 1000;

/// What becomes of them.
pub(super) fn local_replies(at: &At<'_>, wire: &LocalReplyConfig) -> Result<LocalReplies, Invalid> {
    let LocalReplyConfig {
        mappers,
        body_format: format,
    } = wire;
    let at_mappers = at.field("mappers");
    let mappers = mappers.iter().enumerate();
    Ok(LocalReplies {
        mappers: mappers
            .map(|(index, wire)| mapper(&at_mappers.index(index), wire))
            .collect::<Result<_, _>>()?,
        body_format: format
            .as_ref()
            .map(|wire| body_format(&at.field("body_format"), wire, MAX_BODY_BYTES))
            .transpose()?,
    })
}

fn mapper(at: &At<'_>, wire: &ResponseMapper) -> Result<ReplyMapper, Invalid> {
    let ResponseMapper {
        filter: wanted,
        status_code,
        body,
        body_format_override,
        headers_to_add,
    } = wire;
    let at_filter = at.field("filter");
    let at_format = at.field("body_format_override");
    if headers_to_add.len() > MAX_HEADERS {
        let reason = format_args!("{} are more than {MAX_HEADERS}", headers_to_add.len());
        return Err(at.field("headers_to_add").refuse(reason));
    }
    Ok(ReplyMapper {
        filter: filter(&at_filter, required(&at_filter, wanted.as_ref())?)?,
        status: status_code
            .map(|code| status(&at.field("status_code"), code))
            .transpose()?,
        body: body
            .as_ref()
            .map(|source| data_source(&at.field("body"), source, MAX_BODY_BYTES))
            .transpose()?,
        body_format: body_format_override
            .as_ref()
            .map(|wire| body_format(&at_format, wire, MAX_BODY_BYTES))
            .transpose()?,
        headers: formatted_mutations(at, ("headers_to_add", headers_to_add), ("", &[]))?,
    })
}

/// One that ends an exchange.
fn status(at: &At<'_>, code: u32) -> Result<StatusCode, Invalid> {
    u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| at.refuse(format_args!("{code} is no status from 200 to 599")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_proto::json::from_json;

    use super::super::at::Notes;
    use super::*;

    fn translated(json: Value) -> Result<LocalReplies, Invalid> {
        let wire: LocalReplyConfig = from_json(json).expect("a configuration");
        local_replies(&At::root(&Notes::default()), &wire)
    }

    fn of_errors(more: Value) -> Value {
        let mut mapper = json!({"filter": {"status_code_filter": {"comparison":
            {"op": "GE", "value": {"default_value": 500, "runtime_key": "k"}}}}});
        let fields = mapper.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        json!({ "mappers": [mapper] })
    }

    #[test]
    fn a_mapper_has_all_that_envoys_has() {
        let replies = translated(of_errors(json!({
            "status_code": 200, "body": {"inline_string": ""},
            "body_format_override": {"text_format": "%LOCAL_REPLY_BODY%"},
            "headers_to_add": [{"header": {"key": "x-a", "value": "b"}}],
        })))
        .expect("valid");

        let mapper = &replies.mappers[0];
        assert_eq!(mapper.status, Some(StatusCode::OK));
        assert_eq!(mapper.body.as_deref(), Some(&b""[..]));
        assert_eq!(mapper.headers.changes.len(), 1);
        assert!(!replies.needs_request_headers());
    }

    #[test]
    fn request_headers_are_needed_where_something_looks_at_them() {
        let needs = |json| translated(json).expect("valid").needs_request_headers();

        assert!(needs(
            json!({"body_format": {"json_format": {"a": {"b": ["%REQ(x)%"]}}}})
        ));
        assert!(needs(json!({"mappers": [{"filter":
            {"header_filter": {"header": {"name": "x", "present_match": true}}}}]})));
        assert!(!needs(
            json!({"body_format": {"text_format": "%REQ(:PATH)%"}})
        ));
    }

    #[test]
    fn what_envoy_refuses_is_refused_by_its_place() {
        let refusal = |json| translated(json).expect_err("refused").to_string();
        let header = json!({"header": {"key": "x-a", "value": "b"}});

        assert_eq!(
            refusal(json!({"mappers": [{"status_code": 400}]})),
            "mappers[0].filter: missing"
        );
        assert_eq!(
            refusal(of_errors(json!({"status_code": 199}))),
            "mappers[0].status_code: 199 is no status from 200 to 599"
        );
        assert_eq!(
            refusal(of_errors(json!({"body": {}}))),
            "mappers[0].body.specifier: missing"
        );
        assert_eq!(
            refusal(json!({"body_format": {"text_format": "%NOPE%"}})),
            "body_format: %NOPE% is no command operator that is supported"
        );
        assert_eq!(
            refusal(of_errors(json!({"headers_to_add": vec![header; 1001]}))),
            "mappers[0].headers_to_add: 1001 are more than 1000"
        );
    }
}
